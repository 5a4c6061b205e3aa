"""Make .venv and install the pins and this project:  python3 requirements/install.py cpu|ray|other-engines|dev|server

Its syntax is that of Python 3.6, so that an unsupported Python gets a sentence instead of a traceback.  `make` calls
it; without make, call it yourself.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".venv"
PYTHON = VENV / "bin" / "python"

ORDINARY_TORCH = """\
The CPU build of PyTorch (190 MB) cannot be installed, so the ordinary build follows. It works here too, but it brings
CUDA (2.7 GB to download, 5 GB on disk). To get the CPU build, press Ctrl-C, set PIP_EXTRA_INDEX_URL to the index that
pytorch.org names for CPU (Get started > pip > CPU), and give the same command again."""


def main(what):
    refuse_what_cannot_work()
    if not PYTHON.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(VENV)])
    if what == "cpu":
        torch = next(line for line in pins("cpu").read_text().splitlines() if line.startswith("torch=="))
        if pip_install(torch + "+cpu") != 0:
            say(ORDINARY_TORCH)
            need_disk(9)
            require(pip_install("--requirement", str(pins("torch-cuda")), torch))
    require(pip_install("--requirement", str(pins(what))))
    require(pip_install("--no-build-isolation", "--editable", str(HERE.parent)))
    if what == "cpu" and "MAKELEVEL" not in os.environ:
        say("Installed. Next:  .venv/bin/whisperbench benchmark --model demo --corpus demo")


def refuse_what_cannot_work():
    """End with one sentence where no installation could succeed, before anything is made."""
    major, minor = sys.version_info[:2]
    if not OLDEST <= (major, minor) <= NEWEST:
        others = [name for name in ("python3.13", "python3.12", "python3.11") if works(name)]
        way = (
            f"Found here: make demo PYTHON={others[0]}" if others else "Install one, then: make demo PYTHON=python3.12"
        )
        refuse(f"Python 3.11 to 3.13 is needed, and {sys.executable} is Python {major}.{minor}. {way}")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        refuse(
            f"The CPU engine needs Linux on x86-64, and this is {sys.platform} on {platform.machine()}. Use another "
            "machine, or one with a GPU (README: On a GPU)."
        )
    if PYTHON.exists():
        if not works(PYTHON):
            refuse(".venv was made by another Python, which does not work here. Remove it: make clean")
        return
    try:
        import ensurepip  # noqa: F401 - what venv needs, and what Debian leaves out
    except ImportError:
        package = f"python{major}.{minor}-venv"
        refuse(f"This Python cannot make virtual environments. On Debian or Ubuntu: apt-get install {package}")
    need_disk(4)


def works(python):
    """Whether a Python is there and of a version that is supported."""
    program = f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    nowhere = subprocess.DEVNULL
    try:
        return subprocess.call([str(python), "-c", program], stdout=nowhere, stderr=nowhere) == 0
    except OSError:
        return False


def need_disk(gib):
    free = shutil.disk_usage(str(HERE)).free / 2**30
    if free < gib:
        refuse(f"{gib} GiB of disk are needed, and {free:.1f} GiB are free in {HERE.parent}.")


def pip_install(*arguments):
    """Install exactly these requirements, without their dependencies; pip's exit status."""
    return subprocess.call([str(PYTHON), "-m", "pip", "install", "--no-deps", *arguments])


def require(status):
    if status != 0:
        refuse(f"pip failed with status {status}; its output above names the reason.")


def pins(name):
    return HERE / f"{name}.txt"


def say(text):
    sys.stderr.write(text + "\n")


def refuse(sentence):
    sys.exit(f"error: {sentence}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("cpu", "ray", "other-engines", "dev", "server"):
        refuse("say what to install, cpu, ray, other-engines, dev or server: python3 requirements/install.py cpu")
    main(sys.argv[1])
