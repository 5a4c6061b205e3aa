"""The result of a comparison on a terminal: it fits every width and has links."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence

import pytest
import rich.console

from whisperbench.cli.report_table import printer
from whisperbench.cli.sweep import run
from whisperbench.compare.document import Heading, Linked, Part, Table
from whisperbench.config.sweep import SweepConfig
from whisperbench.sweep import run as sweep_library

GPU = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
FIGURES = [GPU, "2.31 (2.05–2.60)", "41.00 (40.00–42.00)"]
TABLE = Table(
    ["rank", "model", "gpu", "WER %", "reqs/sec", "run", "Wh per audio hour", "who"],
    [
        ["1 =", f"large-v{n}", *FIGURES, Linked(f"{n:08x}", "http://mlflow.example/#/run"), "0.70", "ann"]
        for n in range(60)
    ],
    frozenset({0, 3, 4, 6}),
)
PARTS: list[Part] = [Heading(["Whisper leaderboard"], 1), "large-v3 on a GPU.", TABLE]


def shown(width: int, parts: Sequence[Part], *, terminal: bool = False, wanted: str = "table") -> str:
    console = rich.console.Console(
        file=io.StringIO(), width=width, highlight=False, force_terminal=terminal, _environ={"TERM": "xterm-256color"}
    )
    printer(wanted, console)(parts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


EVERYTHING = ("large-v7", "2.31", "41.00", "(2.05–2.60)", "(40.00–42.00)", "00000007", "0.70")


@pytest.mark.parametrize(("width", "left_out"), [(160, 0), (110, 1), (100, 2), (90, 3), (68, 4)])
def test_intervals_and_run_ids_are_left_out_first(width: int, left_out: int) -> None:
    """Columns on the right follow, and are named; no line is longer than the terminal, and no figure is cut."""
    text = shown(width, PARTS)
    assert max(map(len, text.splitlines())) <= width
    assert [each for each in EVERYTHING if each not in text] == list(EVERYTHING[3 : 3 + left_out])
    names = {3: ", run", 4: ", run, Wh per audio hour, who"}.get(left_out, "")
    assert f"Not shown: 20 more rows{names}." in " ".join(text.split())


def test_required_columns_stay_on_a_narrow_terminal() -> None:
    """They are neither left out nor wrapped, whatever is on their left."""
    required = dataclasses.replace(TABLE, required=frozenset({1, 2, 4}))
    text = shown(70, [required])
    head = text.splitlines()[0].split()
    assert [name for name in head if name in ("model", "gpu", "reqs/sec")] == ["model", "gpu", "reqs/sec"]
    assert GPU in text
    assert "WER" not in head
    assert len(text.splitlines()) == 2 + 40 + 1


def test_markdown_if_piped_or_requested(capsys: pytest.CaptureFixture[str]) -> None:
    """`auto` prints tables only on a terminal, with links as escape sequences; a sentence is not markup."""
    shown(100, PARTS, wanted="auto")
    shown(100, PARTS, wanted="markdown", terminal=True)
    printer("table")("No regression [of] a_b.")
    out = capsys.readouterr().out
    assert out.count("# Whisper leaderboard") == 2
    assert out.endswith("\nNo regression [of] a_b.\n")
    text = shown(160, PARTS, wanted="auto", terminal=True)
    assert "](http" not in text
    assert re.search(r"\x1b\]8;[^;]*;http://mlflow\.example/#/run", text)


def test_hostile_cells_are_escaped() -> None:
    """Control characters are escaped, markup is printed as text, and a long word is wrapped."""
    evil = Table(["[bold]name", "b"], [["\x1b[31m[red]x[/red]", "y" * 300]])
    text = shown(80, [evil])
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("terminal", "markdown"), [("1", False), ("", True)])
def test_a_sweep_prints_as_a_comparison_does(
    terminal: str, markdown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The leaderboard is a table on a terminal and markdown in a file."""
    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setattr(sweep_library, "sweep", lambda _options, _listener, echo, *_: echo(PARTS))
    run(SweepConfig())
    assert ("| --: |" in capsys.readouterr().out) is markdown
