"""Resolve the pins of requirements/ and of conda.yaml (make lock), for every Python and both builds of torch.

    python requirements/lock.py [--upgrade]        needs uv; without --upgrade pins stay unless something forces them

cpu.txt          the CPU engine, MLflow and the rest, torch included, whichever build of it
torch-cuda.txt   what torch's ordinary build needs besides; its CPU build needs none of it
ray.txt          Ray, beside cpu.txt, for several engines
other-engines.txt  other engines to compare with, beside cpu.txt or gpu.txt
dev.txt          the development tools, beside cpu.txt and ray.txt
server.txt       the team's tracking server, beside cpu.txt
gpu.txt          vLLM's CUDA build, Ray, the demo's weights, PostgreSQL's client and the rest; conda.yaml holds the
                 same pins

Each file is one universal resolution for Python 3.11 to 3.13 on Linux x86-64; tests/nightly/test_pins.py resolves them
again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
OVERRIDES = HERE / "cpu-overrides.txt"
OF_CUDA = re.compile(r"(nvidia-(?!ml-py)|cuda-)")
HERE_ALWAYS = r"python_full_version < '3\.14'|platform_machine == 'x86_64'|platform_python_implementation == 'CPython'"
SUPPORTED = re.compile(
    rf"(?<=; )(?:(?:{HERE_ALWAYS}|sys_platform == 'linux')(?: and |$))+"
    rf"| and (?:{HERE_ALWAYS})(?= and |$)| and sys_platform == 'linux'$"
)
"""Markers that hold for everything that is supported: lines read better without them."""


def main(arguments: Sequence[str]) -> None:
    extras = {
        "cpu": ("cpu", "demo"),
        "other-engines": ("cpu", "demo", "other-engines"),
        "ray": ("cpu", "demo", "ray"),
        "dev": ("cpu", "demo", "ray", "dev"),
        "server": ("cpu", "demo", "ray", "dev", "server"),
    }
    known = [line for name in ("torch-cuda", *extras) for line in read(name)]
    held: set[str] = set()
    for name, wanted in extras.items():
        found = [line for line in resolve(wanted, known, "--override", str(OVERRIDES), *arguments) if line not in held]
        held.update(found if name != "other-engines" else ())  # dev.txt may stand without them
        known += [] if arguments else found
        write(name, (line for line in found if not OF_CUDA.match(line)))
        if name == "cpu":
            write("torch-cuda", filter(OF_CUDA.match, found))
    gpu = resolve(("gpu", "ray", "demo", "postgres"), [*read("gpu"), *read("cpu"), *read("server")], *arguments)
    write("gpu", gpu)
    head, marker, _ = (PROJECT / "conda.yaml").read_text(encoding="utf-8").partition("  - pip:\n")
    pins = "".join(f'      - "{pin}"\n' if ";" in pin else f"      - {pin}\n" for pin in gpu)
    (PROJECT / "conda.yaml").write_text(head + marker + pins, encoding="utf-8")


def resolve(extras: Iterable[str], known: Iterable[str], *arguments: str) -> list[str]:
    """Lines of one resolution; pins that are `known` already are kept where they can be."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pins.txt")
        output.write_text("\n".join(known) + "\n", encoding="utf-8")
        command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--quiet"]
        command += ["--no-header", "--no-annotate", "--output-file", str(output), *arguments]
        subprocess.run([*command, *(f"--extra={extra}" for extra in extras)], cwd=PROJECT, check=True)
        return [plain(line) for line in output.read_text(encoding="utf-8").splitlines()]


def plain(line: str) -> str:
    return SUPPORTED.sub("", line).rstrip(" ;")


def read(name: str) -> list[str]:
    path = HERE / f"{name}.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def write(name: str, lines: Iterable[str]) -> None:
    (HERE / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
