"""TerminalListener: all output goes to stderr, and records are drawn by the functions registered for their types."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rich.progress

from tests.support.bundles import result
from tests.support.fakes import DELAY_VARIABLE, FakeEngine
from whisperbench import benchmark
from whisperbench.cli import console
from whisperbench.cli.console import Rate, TerminalListener
from whisperbench.cli.options import Command
from whisperbench.cli.transcripts import draw_transcripts
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.engine_log import output_to
from whisperbench.errors import CorpusError
from whisperbench.measure.score import score


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    """They are printed unchanged on stderr, because brackets are not markup."""
    TerminalListener().info("engine [ready]")
    TerminalListener().warning("a [bold] warning")
    assert capsys.readouterr() == ("", "engine [ready]\na [bold] warning\n")


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e"


@pytest.mark.parametrize(
    "show",
    [
        lambda: TerminalListener().warning(ESCAPES),
        lambda: draw_transcripts((result(0, ESCAPES, utt_id=ESCAPES),)),
        lambda: draw_transcripts(score([result(0, ESCAPES, utt_id=ESCAPES, reference=f"a {ESCAPES}")], "de")),
        lambda: console.echo(f"results/{ESCAPES}: logged to run 1"),
        lambda: Command("x", callback=lambda: refuse(ESCAPES)).main([], standalone_mode=False),
    ],
    ids=["warning", "transcripts", "score", "result", "error"],
)
def test_foreign_text_is_escaped(show: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    """File names, transcripts and answers of a server cannot control the terminal."""
    with contextlib.suppress(SystemExit):
        show()
    shown = capsys.readouterr()
    assert not set(ESCAPES[:1] + "\x07\u202e") & set(re.sub(r"\x1b\[\d*m", "", shown.out + shown.err))
    assert "x1b" in shown.out + shown.err


def refuse(text: str) -> None:
    raise CorpusError(text)


def test_without_a_terminal_lines_are_printed_regularly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are also printed before the first result; the last line has the rate and no remaining time."""
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    with TerminalListener().counting("transcribing", 4, "reqs/sec") as advance:
        time.sleep(0.12)
        advance()
        time.sleep(0.12)
        for _ in range(3):
            advance()
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "transcribing 0/4"
    assert re.fullmatch(r"transcribing 4/4, \d+\.\d reqs/sec", last)


def test_the_rate_is_measured_from_the_start_of_the_bar() -> None:
    """8 items in 4 s are 2 per second, even if the first one was late; the rate is fixed after the last item."""
    now = [0.0]
    progress = rich.progress.Progress(get_time=lambda: now[0], disable=True)
    task = progress.add_task("transcribing", total=10)
    now[0] = 4.0
    progress.update(task, completed=8)
    assert str(Rate("reqs/sec").render(progress.tasks[0])) == "2.0 reqs/sec"
    progress.update(task, completed=10)
    now[0] = 100.0
    assert str(Rate("reqs/sec").render(progress.tasks[0])) == "2.5 reqs/sec"


def test_the_rate_of_the_bar_agrees_with_the_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both count the timed region only, without warm-up and engine start."""
    monkeypatch.setenv(DELAY_VARIABLE, "0.05")
    config = BenchmarkConfig(model="demo", corpus="demo", offline=True, results_dir=str(tmp_path / "results"))
    bundle = benchmark.run(config, TerminalListener(), FakeEngine)
    (rate,) = re.findall(r"transcribing 8/8, (\S+) reqs/sec", capsys.readouterr().err)
    assert float(rate) == pytest.approx(bundle.contents.metrics["reqs_per_sec"], rel=0.3)


def test_waiting_shows_the_phase(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line has the phase and the elapsed time, also while the start of an engine redirects stderr to its log."""
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    phases = iter(["", *["compiling [1]"] * 99])
    with TerminalListener().waiting("starting", lambda: next(phases)), output_to(tmp_path / "engine.log"):
        os.write(2, b"from the engine\n")
        time.sleep(0.3)
    assert (tmp_path / "engine.log").read_text() == "from the engine\n"
    assert capfd.readouterr().err.splitlines()[:2] == ["starting, 0 s", "starting: compiling [1], 0 s"]


def test_transcripts_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """They are aligned with the references if they were scored; the upload of a measurement prints none."""
    one = result(0, "a thick fox", reference="a quick fox")
    TerminalListener().show(score([one], "en"))
    assert capsys.readouterr().err == ""
    listener = TerminalListener(draw_transcripts)
    listener.show(score([one], "en"))
    assert "1 of 3 words wrong\na (quick→thick) fox\n" in capsys.readouterr().err
    listener.show((one,))
    assert "no reference\na thick fox\n" in capsys.readouterr().err
