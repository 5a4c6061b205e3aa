"""A comparison on a terminal: readable at every width, with links that can be followed."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import rich.console

from flows import sweep
from flows.terminal.tables import column_widths, printer
from whisperbench.compare.tables import Heading, Linked, Paragraph, Part, Table
from whisperbench.options.sweep import SweepConfig

GPU = "NVIDIA RTX PRO 6000 Blackwell Server Edition"
TABLE = Table(
    ["rank", "model", "WER %", "reqs/sec", "run", "gpu", "Wh per audio hour", "who"],
    [
        [
            "1 =",
            f"large-v{place}",
            "2.31 (2.05\u20132.60)",
            "41.00 (40.00\u201342.00)",
            Linked(f"{place:08x}", "http://mlflow.example/#/run"),
            GPU,
            "0.70",
            "ann",
        ]
        for place in range(60)
    ],
    frozenset({0, 2, 3, 6}),
)
PARTS: list[Part] = [Heading(["Whisper leaderboard"], 1), Paragraph("large-v3 on a GPU.", "Most accurate"), TABLE]


def shown(width: int, parts: list[Part], *, terminal: bool = False, wanted: str = "table") -> str:
    console = rich.console.Console(
        file=io.StringIO(), width=width, highlight=False, force_terminal=terminal, _environ={"TERM": "xterm-256color"}
    )
    printer(wanted, console)(parts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """And what decides is there at every width: whole ids, whole figures, whole words."""
    text = shown(width, PARTS)
    assert max(map(len, text.splitlines())) <= width
    for whole in ("00000027", "large-v7", "2.31", "(2.05\u20132.60)", "(40.00\u201342.00)", "Blackwell"):
        assert whole in text


def test_what_has_no_room_is_named() -> None:
    """Columns on the right, and rows after the fortieth."""
    text = shown(60, PARTS)
    assert "No room for: gpu, Wh per audio hour, who. They are in the files." in " ".join(text.split())
    assert "20 more rows are in the files." in text
    assert "No room" not in shown(160, PARTS)


def test_it_is_no_markdown() -> None:
    """Links are the terminal's own."""
    text = shown(100, PARTS, terminal=True)
    assert "](http" not in text
    assert "**" not in text
    assert "\x1b]8;" in text
    assert "http://mlflow.example/#/run" in text


def test_markdown_where_it_is_piped_or_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """auto follows stdout."""
    shown(100, PARTS, wanted="auto")
    shown(100, PARTS, wanted="markdown", terminal=True)
    assert capsys.readouterr().out.count("# Whisper leaderboard") == 2
    assert "rank" in shown(100, PARTS, wanted="auto", terminal=True)


def test_a_sentence_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict of a gate."""
    printer("table")("No regression [of] a_b.")
    assert capsys.readouterr().out == "No regression [of] a_b.\n"


def test_hostile_cells_give_no_orders() -> None:
    """Escapes are spelled out; markup is text; an endless word is broken."""
    evil = Table(["[bold]name", "b"], [["\x1b[31m[red]x[/red]", "y" * 300]])
    text = shown(80, [evil])
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_left_goes_where_most_lines_are() -> None:
    """A long name beside short figures gets the room."""
    widths = column_widths(Table(["a", "b"], [["1", "one two three four five six"]]), 20)
    assert widths == [1, 17]


@pytest.mark.parametrize(("terminal", "markdown"), [("1", False), ("", True)])
def test_a_sweep_prints_as_a_comparison_does(
    terminal: str, markdown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables on a terminal, markdown into a file; what would run and a search's winner are text as it is."""

    def swept(_options: object, _listener: object, echo: Callable[[str | list[Part]], None], *_: object) -> None:
        echo(PARTS)
        echo("reqs_per_sec: 4.00 | best of 2 settings")

    monkeypatch.setenv("FORCE_COLOR", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sweep, "sweep", swept)
    sweep.run(SweepConfig())
    out = capsys.readouterr().out
    assert ("# Whisper leaderboard" in out) is markdown
    assert ("| --: |" in out) is markdown
    assert out.endswith("reqs_per_sec: 4.00 | best of 2 settings\n")
