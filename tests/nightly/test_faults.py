"""The faults of tests/integration in every place: each request of an upload cut, kills at random moments, many runs."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.test_faults import CLIPS, POSITIONS, REPEATS, Benchmark, Cuts, upload_everything
from tests.support.bundles import contents_of, result_in
from tests.support.servers import Proxy, Server
from tests.support.stores import all_runs, fresh_store
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL, read_bundle
from whisperbench.results.recording import TRANSCRIPTS, read_journal
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.tracked_run import close_stale_runs

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

CLIENT_KILLS = 20
DELAY = 0.004
PROCESSES, RUNS = 4, 200


@pytest.mark.parametrize("answer_lost", [False, True], ids=["request lost", "answer lost"])
def test_every_request_is_cut(
    answer_lost: bool, tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, until an upload takes fewer requests."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Proxy(tracking_server.port) as proxy:
        cuts = Cuts(tracking_server, proxy, tmp_path, answer_lost=answer_lost)
        last = next(request for request in itertools.count(1) if not cuts.repaired(request))
    assert last > max(POSITIONS)


def test_the_client_is_killed_at_random_moments(tmp_path: Path, empty_store: Path) -> None:
    """After recovery every finished utterance is there exactly once, and every run has its right status."""
    address = fresh_store(tmp_path, empty_store)
    started = time.monotonic()
    whole = Benchmark(tmp_path / "whole", address, delay=DELAY)
    assert whole.exit_status() == 0, whole.log.read_text()
    seconds = time.monotonic() - started
    warmup = len(whole.ledger.read_text().splitlines()) - REPEATS * CLIPS
    moments = random.Random(32)  # noqa: S311 - moments, not secrets
    killed = []
    for number in range(CLIENT_KILLS):
        benchmark = Benchmark(tmp_path / str(number), address, delay=DELAY)
        time.sleep(moments.uniform(0.1, 1.0) * seconds)
        benchmark.process.kill()
        benchmark.process.wait()
        killed.append(benchmark)

    client = connect(address)
    close_stale_runs(client)
    for folder in Path(os.environ["TMPDIR"]).glob("tmp*"):
        shutil.rmtree(folder)  # MLflow's log_text leaves its file where the process is killed
    complete = [path.name for path in whole.results.iterdir()]
    for benchmark in killed:
        upload_everything(client, benchmark.results)
        complete += check_what_is_kept(benchmark, warmup)
    runs = all_runs(client, "tags.`whisperbench.owner` LIKE 'host%'")
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}, "the moments were not spread over the command"
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert sorted(run.data.tags[BUNDLE_TAG] for run in finished) == sorted(complete)
    for run in finished:
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"transcripts.json", "summary.md", "environment.txt", "samples"} <= names


def check_what_is_kept(benchmark: Benchmark, warmup: int) -> list[str]:
    """Each utterance that the engine returned is on disk once; the ids of complete bundles."""
    returned = len(benchmark.ledger.read_text().splitlines()) - warmup if benchmark.ledger.exists() else 0
    directories = list(benchmark.results.iterdir()) if benchmark.results.exists() else []
    assert len(directories) <= 1
    kept, complete = 0, []
    for directory in directories:
        read = read_journal(directory) if (directory / TRANSCRIPTS).exists() else ()
        found = [(result.repeat, result.utt_id) for result in read]
        assert len(set(found)) == len(found)
        kept = len(found)
        if not directory.name.endswith(PARTIAL):
            complete.append(read_bundle(directory).id)
            assert kept == REPEATS * CLIPS
        else:
            assert not (directory / BUNDLE_FILE).exists() or kept == REPEATS * CLIPS
    assert kept >= returned - 1, "one may be between the engine and the disk"
    return complete


def log_results(address: str, results_dir: Path, numbers: Sequence[int]) -> None:
    """Several runs, one after the other, each with its number in every part of it."""
    client = connect(address)
    for number in numbers:
        contents = contents_of(f"run-{number}", float(number))
        bundle = result_in(results_dir, contents, transcripts={number: f"said in run {number}"})
        run_id = tracking.open_run(client, experiment="many", run_id=None, name=f"run-{number}", tags={})
        tracking.log_bundle(client, run_id, bundle)
        tracking.close_run(client, run_id, "FINISHED")


def test_many_runs_from_several_processes(tracking_server: Server, tmp_path: Path) -> None:
    """Concurrently on one server: none is lost, none is mixed with another."""
    client = connect(tracking_server.address)
    experiment = client.create_experiment("many")
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=log_results, args=(tracking_server.address, tmp_path / str(i), range(i, RUNS, PROCESSES)))
        for i in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    runs = client.search_runs([experiment], max_results=1000)
    assert sorted(run.info.run_name for run in runs) == sorted(f"run-{number}" for number in range(RUNS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.info.run_name == f"run-{run.data.metrics['wer']:.0f}" for run in runs)
    for run in runs[:: RUNS // 20]:
        text = Path(client.download_artifacts(run.info.run_id, "transcripts.json", str(tmp_path))).read_text()
        assert f'said in {run.info.run_name.replace("-", " ")}"' in text
