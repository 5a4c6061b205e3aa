"""What a user relies on when a command is stopped, works offline, or meets a full disk; the engine is a fake one."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import FAKE_BENCHMARK, FAKE_SWEEP, command, lines_in, run, start, wait_until
from tests.support.fake_sweep import SECONDS_VARIABLE
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.stores import all_runs
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL
from whisperbench.results.recording import read_journal

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

DEMO = {"model": "demo", "corpus": "demo", "results_dir": "results"}
ROOM_BYTES = 3_600
"""The journal and measurement.json fit, bundle.json does not."""
NO_SERVER = "http://127.0.0.1:9"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_in_the_middle(number: signal.Signals, client: Any, tmp_path: Path) -> None:
    """Status 128 + n, a run that is KILLED and names the signal, and the finished transcripts on disk."""
    log, ledger = tmp_path / "out.log", tmp_path / "ledger"
    variables = {DELAY_VARIABLE: "0.05", LEDGER_VARIABLE: str(ledger)}
    process = start(FAKE_BENCHMARK, tmp_path, {**DEMO, "repeats": 50}, log=log, **variables)
    wait_until(lambda: lines_in(ledger) > 20, process, log)
    process.send_signal(number)
    assert process.wait() == 128 + number, log.read_text()
    (held,) = all_runs(client)
    assert (held.info.status, held.data.tags["whisperbench.failure"]) == ("KILLED", number.name)
    (partial,) = (tmp_path / "results").glob(f"*{PARTIAL}")
    assert read_journal(partial)


def test_offline_and_uploaded_twice(client: Any, tmp_path: Path) -> None:
    """No server is asked during the measurement; the first upload makes the run, the second finds it."""
    measured = {**DEMO, "offline": "true", "repeats": 2}
    status, out, err = run(FAKE_BENCHMARK, tmp_path, measured, MLFLOW_TRACKING_URI=NO_SERVER)
    assert status == 0, err
    assert out.splitlines()[-1].startswith("WER: ")
    printed = []
    for _ in range(2):
        status, out, err = run(command("upload"), tmp_path, {"bundles": "results/*"})
        assert status == 0, err
        printed.append(out)
    (held,) = all_runs(client)
    assert held.info.status == "FINISHED"
    assert held.data.tags["whisperbench.repeats"].partition("|")[0].count(",") == 1
    assert [f"already in run {held.info.run_id}" in out for out in printed] == [False, True]


def test_a_sweep_that_is_killed_is_resumed(client: Any, tmp_path: Path) -> None:
    """The second start measures what is missing: each of two configurations is FINISHED once, and nothing RUNNING."""
    benchmarks = "tags.`whisperbench.kind` = 'benchmark'"
    options = {"model": "tiny.en", "corpus": "demo", "load_format": "dummy", "max_num_seqs": "4,8"}
    log = tmp_path / "out.log"
    process = start(FAKE_SWEEP, tmp_path, options, log=log, **{SECONDS_VARIABLE: "2"})

    def statuses() -> list[str]:
        return sorted(held.info.status for held in all_runs(client, benchmarks))

    wait_until(lambda: statuses() == ["FINISHED", "RUNNING"], process, log)
    process.kill()
    process.wait()
    status, _, err = run(FAKE_SWEEP, tmp_path, options)
    assert status == 0, err
    finished = [held for held in all_runs(client, benchmarks) if held.info.status == "FINISHED"]
    assert sorted(held.data.params["max_num_seqs"] for held in finished) == ["4", "8"]
    assert statuses() == ["FINISHED", "FINISHED", "KILLED"]
    (parent,) = all_runs(client, "tags.`whisperbench.kind` = 'sweep'")
    assert parent.info.status == "FINISHED"


def test_a_full_disk_before_the_result_is_complete(client: Any, tmp_path: Path) -> None:
    """Every transcript is on disk and bundle.json is not; with room again an upload completes the result."""
    log, journals = tmp_path / "out.log", f"results/*{PARTIAL}/transcripts.jsonl"
    process = start(FAKE_BENCHMARK, tmp_path, {**DEMO, "offline": "true"}, log=log, **{DELAY_VARIABLE: "0.2"})
    wait_until(lambda: any(tmp_path.glob(journals)), process, log)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES))
    assert process.wait() == 1, log.read_text()
    assert "Traceback" not in log.read_text()
    (journal,) = tmp_path.glob(journals)
    assert lines_in(journal) == 8
    assert not (journal.parent / BUNDLE_FILE).exists()
    status, _, err = run(command("upload"), tmp_path, {"bundles": "results/*"})
    assert status == 0, err
    (held,) = all_runs(client)
    assert (held.info.status, held.data.metrics["utterances"]) == ("FINISHED", 8)
    assert "transcripts.json" in {artifact.path for artifact in client.list_artifacts(held.info.run_id)}
