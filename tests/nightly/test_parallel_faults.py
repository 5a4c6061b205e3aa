"""Faults of two real engines on Ray: every clip has its transcript, and no process is left."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.commands import called, command, start, still_running
from tests.support.corpora import DEMO_TRANSCRIPTS
from whisperbench.results.bundle import PARTIAL, read_bundle
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import TRANSCRIPTS

COPIES, BEFORE_THE_FAULT = 20, 20
OPTIONS = {
    **{"model": "demo", "corpus": "demo", "dtype": "float32", "gpus": 2, "corpus_copies": COPIES, "max_num_seqs": 8},
    **{"offline": "true", "stall_minutes": 0.75, "results_dir": "results"},
}


@pytest.mark.usefixtures("no_project_run")
@pytest.mark.parametrize(
    ("victim", "number", "status"),
    [
        (None, signal.SIGCONT, 0),
        ("EngineWorker", signal.SIGSTOP, 1),
        ("VLLM::EngineCore", signal.SIGKILL, 1),
        ("VLLM::EngineCore", signal.SIGSTOP, 1),
        ("driver", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_fault(victim: str | None, number: signal.Signals, status: int, tmp_path: Path) -> None:
    """Without an engine the other one transcribes the rest and the run has no rate; without a driver it is partial."""
    log, results = tmp_path / "out.log", tmp_path / "results"
    process = start(command("benchmark"), tmp_path, OPTIONS, log=log)
    try:
        while len(texts_in(results)) < BEFORE_THE_FAULT:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        if victim == "driver":
            process.send_signal(number)
        elif victim:
            called(victim, family)[0].send_signal(number)
        assert process.wait(400) == status, log.read_text()
    finally:
        process.kill()  # its guardian ends the rest
    assert still_running(family, 30) == []
    (directory,) = results.iterdir()
    texts = texts_in(results)
    assert {utt: text for utt, text in texts if text != DEMO_TRANSCRIPTS[utt]} == {}
    counts = Counter(utt for utt, _ in texts)
    if victim == "driver":
        assert directory.name.endswith(PARTIAL)
        assert max(counts.values()) <= COPIES
        return
    assert counts == dict.fromkeys(DEMO_TRANSCRIPTS, COPIES)
    contents = read_bundle(directory).contents
    assert "wer" in contents.metrics
    assert ("reqs_per_sec" in contents.metrics) == (victim is None)
    assert bool(contents.tags.get(WARNINGS)) or victim is None


def texts_in(results: Path) -> list[tuple[str, str]]:
    """Utterance (without the number of its copy) and text of every line on disk."""
    found = []
    for path in results.glob(f"*/{TRANSCRIPTS}"):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # the last line of a killed driver may be cut
                entry = json.loads(line)
                found.append((entry["utt_id"].partition("#")[0], entry["hypothesis"]))
    return found
