"""No pin contradicts what a pinned package asks for, and nothing that one asks for is missing: for every Python that
is supported, with both builds of torch, and in the environment that the tests run in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.test_pins import PROJECT, pins

PYTHONS = ("3.11", "3.12", "3.13")
SUPPORTED = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["environments"]
CPU_OVERRIDES = PROJECT / "requirements" / "cpu-overrides.txt"


def conda_pins() -> list[str]:
    return list(yaml.safe_load((PROJECT / "conda.yaml").read_text(encoding="utf-8"))["dependencies"][2]["pip"])


def resolve(lines: Iterable[str], overrides: str, folder: Path) -> tuple[set[str], str]:
    """Everything that these lines need on Python 3.11 to 3.13, and what uv said when it found a contradiction."""
    wanted, replaced = folder / "pyproject.toml", folder / "overrides.txt"
    project = {"name": "wanted", "version": "0", "requires-python": ">=3.11,<3.14", "dependencies": list(lines)}
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in project.items())
    wanted.write_text(f"[project]\n{fields}[tool.uv]\nenvironments = {json.dumps(SUPPORTED)}\n", encoding="utf-8")
    replaced.write_text(overrides, encoding="utf-8")
    command = [Path(sys.executable).parent / "uv", "pip", "compile", wanted, "--override", replaced, "--quiet"]
    command += ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if re.search(r"[Ff]ailed to fetch|error sending request|dns error", done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip()[-200:]}")
    return {same_everywhere(line) for line in done.stdout.splitlines()}, done.stderr


def same_everywhere(line: str) -> str:
    """`name==version` and the supported Pythons that it is for, whatever else its marker says."""
    found = Requirement(line)
    versions = [{"python_version": python, "python_full_version": f"{python}.1"} for python in PYTHONS]
    fitting = [v["python_version"] for v in versions if found.marker is None or found.marker.evaluate(v)]
    return f"{canonicalize_name(found.name)}{found.specifier} on {', '.join(fitting)}"


def environments() -> dict[str, tuple[list[str], str]]:
    """Name -> pins, and what replaces a requirement there."""
    overrides = CPU_OVERRIDES.read_text(encoding="utf-8")
    # The CPU build of torch asks for nothing of CUDA: all that it asks for stands in cpu.txt (test below).
    without_torch = overrides.replace("torch==2.13.0", "torch ; sys_platform == 'never'")
    everything = pins("cpu", "ray", "dev", "server")
    return {
        "CPU engine, torch's CPU build": ([p for p in everything if not p.startswith("torch==")], without_torch),
        "CPU engine, torch's ordinary build": ([*everything, *pins("torch-cuda")], overrides),
        "CPU engine with other engines": ([*pins("cpu", "other-engines"), *pins("torch-cuda")], overrides),
        "GPU": (pins("gpu"), ""),
        "GPU with other engines": (pins("gpu", "other-engines"), ""),
        "conda.yaml": (conda_pins(), ""),
    }


@pytest.mark.parametrize("name", environments())
def test_the_pins_are_one_resolution(name: str, tmp_path: Path) -> None:
    """On each supported Python nothing contradicts, and what the pins need is the pins."""
    lines, overrides = environments()[name]
    found, said = resolve(lines, overrides, tmp_path)
    assert found == {same_everywhere(line) for line in lines}, said
