"""The documents agree with the project: commands, links and metrics in them exist."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from whisperbench.cli import COMMANDS
from whisperbench.cli.generate import ENTRY_POINTS
from whisperbench.config.benchmark import OPTIONS
from whisperbench.results.names import METRICS

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    str(path.relative_to(PROJECT))
    for path in sorted([PROJECT / "README.md", *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("benchmarks/*.md")])
]
PROGRAMS = r"(?:make|mlflow|(?:\.venv/bin/)?python3?|(?:\.venv/bin/)?whisperbench) "


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def commands_of(text: str) -> list[list[str]]:
    """The words of each command in shell blocks and code spans; continued lines are joined."""
    shell = re.findall(r"```(?:sh|bash)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(rf"`({PROGRAMS}[^`]+)`", prose)]
    return [words for line in lines + spans if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_documents_exist(name: str) -> None:
    """Each `make` target and variable, entry point, option with its value, module and script."""
    commands = commands_of(read(name))
    assert len(commands) > 10 or name != "README.md"
    for command in commands:
        program, *words = itertools.dropwhile(lambda word: "=" in word, command)
        kind = Path(program).name
        if kind == "make":
            check_make(words)
        elif kind == "mlflow" and words[0] == "run":
            entry = words[words.index("-e") + 1] if "-e" in words else "main"
            given = [words[i + 1].partition("=") for i, word in enumerate(words) if word == "-P"]
            check_entry_point(entry, [text for key, _, value in given for text in (f"--{key}", value)])
        elif kind == "whisperbench":
            assert words[0] in COMMANDS
            check_entry_point("main" if words[0] == "benchmark" else words[0], words[1:])
        elif kind.startswith("python"):
            check_python(words)


def check_make(words: Sequence[str]) -> None:
    """Targets are in the Makefile; variables there, or in the script that it starts."""
    makefile = read("Makefile")
    targets = " ".join(re.findall(r"^([a-z -]+):", makefile, flags=re.MULTILINE)).split()
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"\b{name}\b", makefile + read("docs/team-server/serve")) if is_variable else name in targets


def check_python(words: Sequence[str]) -> None:
    """A script or a module of the project; a click command of `benchmarks` has its arguments."""
    file = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
    assert (PROJECT / file).exists() or (PROJECT / "src" / file).exists(), words
    if file.startswith("benchmarks/"):
        parse(importlib.import_module(words[1]).main, words[2:])


def check_entry_point(entry: str, arguments: Sequence[str]) -> None:
    """The command has these options, and its record, which `ui` does not have, accepts the values."""
    if entry in ENTRY_POINTS:
        module, record = ENTRY_POINTS[entry]
        record.from_params(parse(importlib.import_module(module).main, arguments).params)


def parse(command: click.Command, arguments: Sequence[str]) -> click.Context:
    """Parse without running the command; click raises if it does not have an option."""
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    return command.make_context(command.name, list(arguments))


def headings_of(text: str) -> set[str]:
    """The anchors of a document's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_in_documents_lead_somewhere(name: str) -> None:
    """Figures, directories, documents and headings are part of the project."""
    for link in re.findall(r"\]\((?!\w+://)([^)]+)\)", read(name)):
        path, _, heading = link.partition("#")
        target = (PROJECT / name).parent / path if path else PROJECT / name
        assert target.exists(), link
        assert not heading or heading in headings_of(target.read_text(encoding="utf-8")), link


def test_every_metric_has_a_row() -> None:
    """docs/metrics.md has one row per metric, in the order of the summary."""
    rows = re.findall(r"^\| `(\w+)` \|", read("docs/metrics.md"), flags=re.MULTILINE)
    assert rows == [metric.name for metric in METRICS]


def test_the_options_in_the_readme_are_the_common_ones() -> None:
    """With their defaults; docs/options.md has their help."""
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", read("README.md"), flags=re.MULTILINE))
    assert shown == {name: each.default_text for name, each in OPTIONS.items() if each.common}
