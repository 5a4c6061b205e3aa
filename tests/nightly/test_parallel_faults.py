"""Faults of two real engines on Ray: every clip has its transcript, and no process is left."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.integration.test_parallel import Run
from tests.support.commands import called, command, lines_in, still_running, wait_until
from tests.support.corpora import DEMO_TRANSCRIPTS
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import TRANSCRIPTS

BEFORE_THE_FAULT = 20


@pytest.mark.usefixtures("no_project_run")
@pytest.mark.parametrize("number", [None, signal.SIGKILL, signal.SIGSTOP])
def test_a_fault_of_an_engine(number: signal.Signals | None, tmp_path: Path) -> None:
    """The other one transcribes the rest, and the run has no rate; without a fault it has one."""
    run = Run(tmp_path, command("benchmark"), dtype="float32", stall_minutes=0.75)
    try:
        wait_until(lambda: any(map(transcribed, run.results.glob("*"))), run.process, seconds=600)
        family = psutil.Process(run.process.pid).children(recursive=True)
        if number:
            called("VLLM::EngineCore", family)[0].send_signal(number)
        _, err = run.process.communicate(timeout=400)
        assert run.process.returncode == (1 if number else 0), err
    finally:
        run.process.kill()  # its guardian ends the rest
    assert still_running(family, 30) == []
    lines = (run.bundle.directory / TRANSCRIPTS).read_text(encoding="utf-8").splitlines()
    texts = [(entry["utt_id"].partition("#")[0], entry["hypothesis"]) for entry in map(json.loads, lines)]
    assert set(texts) == set(DEMO_TRANSCRIPTS.items())
    assert Counter(utt_id for utt_id, _ in texts) == dict.fromkeys(DEMO_TRANSCRIPTS, 20)
    contents = run.bundle.contents
    assert "wer" in contents.metrics
    assert ("reqs_per_sec" in contents.metrics) == (number is None)
    assert bool(contents.tags.get(WARNINGS)) or number is None


def transcribed(directory: Path) -> bool:
    return lines_in(directory / TRANSCRIPTS) >= BEFORE_THE_FAULT
