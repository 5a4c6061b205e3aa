"""The benchmark command with two engines on Ray: its result, and what remains after something is killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.commands import FAKE_BENCHMARK, called, lines_in, start, still_running, wait_until
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from whisperbench.results.bundle import ARTIFACTS, Bundle, read_bundle
from whisperbench.results.names import WARNINGS


class Run:
    """The command in a process of its own; the engines append a line to `ledger` for each result."""

    def __init__(self, folder: Path, words: tuple[str, ...] = FAKE_BENCHMARK, **more: object) -> None:
        self.results, self.ledger = folder / "results", folder / "ledger"
        given = {"model": "demo", "corpus": "demo", "gpus": 2, "corpus_copies": 20, "max_num_seqs": 8}
        given |= {"offline": "true", "results_dir": self.results, **more}
        variables = {DELAY_VARIABLE: "0.03", LEDGER_VARIABLE: str(self.ledger)}
        self.process = start(words, folder, given, **variables)

    def wait_for_results(self, count: int) -> list[psutil.Process]:
        """Every process of the run, once its engines have returned so many results."""
        wait_until(lambda: lines_in(self.ledger) >= count, self.process)
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def bundle(self) -> Bundle:
        (found,) = self.results.iterdir()
        return read_bundle(found)


BEFORE_THE_PASS = 2 * (8 + 80)  # the warm-up of each engine, and as many clips alone as it has of the pass


def test_two_engines_are_one_run(tmp_path: Path) -> None:
    """One line, one bundle, all transcripts, the number of engines, and how they scaled."""
    run = Run(tmp_path)
    out, err = run.process.communicate(timeout=200)
    assert run.process.returncode == 0, err
    assert out.splitlines()[-1].startswith("WER: ")
    contents = run.bundle.contents
    assert contents.params["engines"] == "2"
    assert contents.metrics["utterances"] == 160
    assert contents.metrics["scaling_efficiency"] > 20  # of two cores that others use too
    table = json.loads((run.bundle.directory / ARTIFACTS / "transcripts.json").read_text(encoding="utf-8"))
    assert len(table["data"]) == 8


def test_an_engine_that_is_killed_leaves_the_transcripts_without_a_rate(tmp_path: Path) -> None:
    """The WER is kept, the run is tagged, the exit status is 1, and no process remains."""
    run = Run(tmp_path)
    processes = run.wait_for_results(BEFORE_THE_PASS + 20)
    called("EngineWorker", processes)[0].kill()
    out, err = run.process.communicate(timeout=200)
    assert run.process.returncode == 1, out
    assert "1 engine(s) failed" in err
    contents = run.bundle.contents
    assert contents.metrics["utterances"] == 160
    assert "wer" in contents.metrics
    assert "reqs_per_sec" not in contents.metrics
    assert "1 engine(s) failed" in contents.tags[WARNINGS]
    assert still_running(processes, 20) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_no_process_outlives_the_driver(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Neither an engine nor a process of Ray; the transcripts are on disk."""
    run = Run(tmp_path)
    processes = run.wait_for_results(BEFORE_THE_PASS + 20)
    assert called("raylet", processes)
    run.process.send_signal(number)
    run.process.communicate(timeout=60)
    assert run.process.returncode == status
    assert still_running(processes, 20) == []
    (partial,) = run.results.iterdir()
    assert len((partial / "transcripts.jsonl").read_bytes().splitlines()) >= 10
