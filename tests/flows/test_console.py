"""The terminal's listener: everything goes to stderr, and a record is drawn by whoever knows its type."""

from __future__ import annotations

import dataclasses

import pytest

from flows.terminal.console import TerminalListener
from tests.support.bundles import transcript
from whisperbench.measure.score import score


def test_sentences_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """As they are: brackets are no mark-up, and stdout is for results."""
    TerminalListener().said("engine [ready]")
    TerminalListener().warned("a [bold] warning")
    assert capsys.readouterr() == ("", "engine [ready]\na [bold] warning\n")


def test_counting(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar stands where it was told."""
    with TerminalListener().counting("transcribing", 3, "reqs/sec") as done:
        done(2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "transcribing" in shown.err
    assert "2/3" in shown.err


def test_transcripts_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """With their differences where there is a score; a corpus of many is not."""
    one = dataclasses.replace(transcript(0), reference="a quick fox", hypothesis="a thick fox")
    TerminalListener().show(score([one], "en", seed=1))
    assert "1 of 3 words wrong\na (quick→thick) fox\n" in capsys.readouterr().err
    TerminalListener().show((one,))
    assert "no reference\na thick fox\n" in capsys.readouterr().err
    TerminalListener().show((one,) * 13)
    assert capsys.readouterr() == ("", "")


def test_a_record_that_nobody_draws() -> None:
    """A mistake of the program, not of the person at the terminal."""
    with pytest.raises(TypeError, match="int"):
        TerminalListener().show(1)
