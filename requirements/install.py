"""Make .venv and install pinned packages into it:  python3 requirements/install.py cpu|ray|other-engines|dev|server

Runs on whatever Python 3 there is, so that a wrong one gets a sentence and no traceback: nothing here is newer than
Python 3.6.  `make` calls it; without make, call it yourself.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".venv"
PYTHON, LOG = VENV / "bin" / "python", VENV / "install.log"

ORDINARY_TORCH = """\
pip finds only PyTorch's ordinary build, which works here but brings CUDA: 2.7 GB to download, 5 GB on disk.
The CPU build is 190 MB. To have it: Ctrl-C, set PIP_EXTRA_INDEX_URL to the index that pytorch.org names for CPU
(Get started > pip > CPU), and give the same command again. Going on with the ordinary build …"""

DEMO = (
    "PATH=.venv/bin:$PATH MLFLOW_TRACKING_URI=sqlite:///mlflow.db mlflow run . --env-manager local "
    "--experiment-name whisperbench -P model=demo -P corpus=demo"
)


def main(what):
    refuse_what_cannot_work()
    if not PYTHON.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(VENV)])
    if what == "cpu":
        torch = next(line for line in pins("cpu").read_text().splitlines() if line.startswith("torch=="))
        if not install("torch, CPU build", [torch + "+cpu"], may_be_missing=True):
            say(ORDINARY_TORCH)
            need_disk(9)
            install("torch, ordinary build", ["--requirement", str(pins("torch-cuda")), torch])
    names = {
        "cpu": "the CPU engine, MLflow and the rest",
        "ray": "Ray, for several engines",
        "other-engines": "other engines",
        "dev": "development tools",
        "server": "the team's server",
    }
    install(names[what], ["--requirement", str(pins(what))])
    if what == "cpu" and "MAKELEVEL" not in os.environ:
        say(f"Installed. Now:  {DEMO}")


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
            f"The CPU engine is for Linux on x86-64, and this is {sys.platform} on {platform.machine()}, where nothing "
            "of it was ever run. Use another machine, or one with a GPU (README: On a GPU)."
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


def install(what, arguments, may_be_missing=False):
    """Install exactly this, nothing that it asks for; whether pip found it.  What pip says is in .venv/install.log."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-deps", "--progress-bar", "off", *arguments]
    started, packages, megabytes, last = time.time(), 0, 0.0, []
    with LOG.open("a") as log:
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        for line in pip.stdout:
            log.write(line)
            last = [*last[-14:], line]
            packages += line.startswith("Collecting ")
            if line.startswith("Successfully installed "):
                packages = len(line.split()) - 2
            megabytes += downloaded(line)
            step = "unpacking" if line.startswith("Installing collected") else f"{packages} packages"
            progress(f"{what}: {step}, {megabytes:,.0f} MB, {clock(time.time() - started)}")
    progress("")
    if pip.wait() == 0:
        if packages:
            took = clock(time.time() - started)
            say(f"installed {what}: {packages} packages, {megabytes:,.0f} MB, {took}")
        return True
    # pip has another sentence for the same where the user has a constraint on it.
    if not (may_be_missing and any("No matching distribution" in x or "ResolutionImpossible" in x for x in last)):
        say("".join(last))
        refuse(f"pip could not install {what} (status {pip.returncode}); all that it said: {LOG}")
    return False


def downloaded(line):
    """Megabytes of a line such as `  Downloading torch-2.13.0-….whl (191.8 MB)`."""
    words = line.replace("(", " ").replace(")", " ").split()
    if words[:1] != ["Downloading"] or len(words) < 4 or words[1].endswith(".metadata"):
        return 0.0
    return float(words[2]) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3}.get(words[3], 0.0)


def pins(name):
    return HERE / f"{name}.txt"


def clock(seconds):
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def progress(text):
    """A line that the next one overwrites, where somebody looks."""
    if sys.stderr.isatty():
        sys.stderr.write("\r" + text[:79].ljust(79) + ("" if text else "\r"))
        sys.stderr.flush()


def say(text):
    sys.stderr.write(text + "\n")


def refuse(sentence):
    sys.exit(f"error: {sentence}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("cpu", "ray", "other-engines", "dev", "server"):
        refuse("say what to install, cpu, ray, other-engines, dev or server: python3 requirements/install.py cpu")
    main(sys.argv[1])
