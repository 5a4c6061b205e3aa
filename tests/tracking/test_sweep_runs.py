"""The runs of a sweep that was killed, as the next start finds them."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from typing import Any

from tests.support.stores import run_of
from whisperbench.listener import Listener
from whisperbench.supervise import owner
from whisperbench.supervise.owner import Process
from whisperbench.sweep.parent_run import best_of
from whisperbench.tracking.sweep_runs import PARENT, clean_up, log_best, orphaned_runs
from whisperbench.tracking.write import PROCESS_TAG


class Heard(Listener):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def said(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_configuration_that_outlives_its_sweep_is_waited_for(client: Any) -> None:
    """It notices soon that it is alone, but holds the GPU until then: what starts beside it measures two at once."""
    here, heard = Process.this(), Heard()
    assert here is not None
    with subprocess.Popen(["sleep", "30"]) as process:
        started = owner._started(process.pid)
        assert started is not None
        working = dataclasses.replace(here, pid=process.pid, started=started)
        dead = dataclasses.replace(here, pid=4194399)
        parent = client.create_run("0", tags={PROCESS_TAG: str(dead)}).info.run_id
        child = client.create_run("0", tags={PROCESS_TAG: str(working), PARENT: parent}).info.run_id
        assert orphaned_runs(client, "0") == [child]
        began = time.monotonic()
        threading.Timer(1.0, process.kill).start()
        clean_up(client, "0", heard)
        assert time.monotonic() - began > 0.9
    assert heard.sentences[0] == "waiting for 1 process(es) of a sweep that was killed to end"
    assert {client.get_run(run_id).info.status for run_id in (parent, child)} == {"KILLED"}


def test_a_sweeps_run_has_the_best_of_its_runs(client: Any) -> None:
    """The lowest WER and the highest rates, each by itself; what no run has measured is absent."""
    run_id = client.create_run("0").info.run_id
    records = [run_of(wer=2.5, rate=40.0), run_of(wer=2.0, rate=30.0), run_of(wer=None, rate=None)]
    log_best(client, run_id, best_of(records))
    assert client.get_run(run_id).data.metrics == {"best/wer": 2.0, "best/reqs_per_sec": 40.0, "best/rtfx": 296.0}
    assert best_of(records[2:]) == {}
