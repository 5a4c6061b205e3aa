"""The fault table: each fault is caused for real, and nothing that was measured is lost.

| fault | how it is caused | what must hold afterwards |
|---|---|---|
| server down | the real server is killed before, during and after logging | status 3, bundle, upload completes it |
| connection cut | a proxy cuts every request in turn, before or after the server saw it | one run, complete |
| disk full on the server | the server may not write files beyond a few bytes | status 3, bundle, upload completes it |
| disk full here | `test_bundle.TestFullDisk` | transcripts kept, no half bundle |
| engine killed | SIGKILL to the real engine while it works | FAILED with the cause and its log, transcripts kept |
| client killed | SIGKILL at random moments | every finished utterance once, every run its status |
"""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import contents_of, held_by, result_in
from tests.support.commands import Command
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.servers import Proxy, Server, served_store
from tests.support.stores import all_runs, fresh_store
from whisperbench.errors import TrackingError
from whisperbench.results.bundle import CONTENTS, PARTIAL, Origin, read_bundle, unlogged_bundles
from whisperbench.results.recording import read_journal
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.upload import find_bundles, upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_KILLS = 20
SOAK_PROCESSES, SOAK_RUNS = 4, 200
REPEATS = 6
CLIPS = 8  # of the demo corpus
DEMO = ("--model", "demo", "--corpus", "demo", "--repeats", str(REPEATS))


class Benchmark:
    """The benchmark command with a fake engine, in a process of its own."""

    def __init__(self, warm: Any, directory: Path, address: str, *arguments: str, delay: float = 0.0) -> None:
        self.results, self.log, self.ledger = directory / "results", directory / "out.log", directory / "ledger"
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            DELAY_VARIABLE: str(delay),
            LEDGER_VARIABLE: str(self.ledger),
        }
        command = (*DEMO, "--results_dir", str(self.results), *arguments)
        self.started = time.monotonic()
        self.process = Command(
            warm, "fake_benchmark", list(command), environment=environment, folder=directory, log=self.log
        )

    def wait_until_transcribing(self) -> None:
        while not self.ledger.exists() or self.ledger.read_bytes().count(b"\n") < CLIPS + 3:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.005)

    def exit_status(self) -> int:
        return self.process.wait(60)


def upload_everything(client: Any, results: Path) -> None:
    if unlogged_bundles(results):
        for path in find_bundles(str(results)).bundles:
            upload_bundle(client, read_bundle(path))


class TestServerKilled:
    @pytest.fixture(scope="class")
    @classmethod
    def mortal(cls, tmp_path_factory: pytest.TempPathFactory, empty_store: Path, warm: Any) -> Any:
        """A server of its own, to be killed and started again."""
        directory = tmp_path_factory.mktemp("mortal")
        with Server(directory, served_store(directory, empty_store), warm) as server:
            yield server

    def test_before_the_measurement(self, warm: Any, tmp_path: Path) -> None:
        """Nothing is measured: status 3 within 10 s, and the way out."""
        benchmark = Benchmark(warm, tmp_path, "http://127.0.0.1:9")
        assert benchmark.exit_status() == 3
        assert time.monotonic() - benchmark.started < 10
        assert "--offline true" in benchmark.log.read_text()
        assert not benchmark.ledger.exists()

    def test_while_it_measures(self, warm: Any, mortal: Server, tmp_path: Path) -> None:
        """Status 3, the bundle's path and the command; the upload finishes the same run."""
        benchmark = Benchmark(warm, tmp_path, mortal.address, delay=0.01)
        benchmark.wait_until_transcribing()
        mortal.kill()
        assert benchmark.exit_status() == 3
        (bundle,) = (read_bundle(path) for path in unlogged_bundles(benchmark.results))
        said = benchmark.log.read_text()
        assert str(bundle.directory) in said
        assert bundle.upload_command in said
        mortal.start()
        client = connect(mortal.address)
        upload_everything(client, benchmark.results)
        assert bundle.origin.run_id is not None
        run = client.get_run(bundle.origin.run_id)
        assert run.info.status == "FINISHED"
        assert bundle.contents.metrics.keys() <= run.data.metrics.keys()
        assert len(all_runs(client, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'")) == 1

    def test_between_logging_and_closing(self, mortal: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything is there but the status: closing fails as logging does, and an upload closes the run."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client = connect(mortal.address)
        run_id = tracking.open_run(client, experiment=None, run_id=None, name="demo", tags={})
        bundle = result_in(tmp_path, origin=tracking.origin_of(client, run_id))
        tracking.log_bundle(client, run_id, bundle)
        mortal.kill()
        with pytest.raises(TrackingError):
            tracking.close_run(client, run_id, "FINISHED")
        mortal.start()
        assert client.get_run(run_id).info.status == "RUNNING"
        assert upload_bundle(client, bundle) == (run_id, True)
        assert client.get_run(run_id).info.status == "FINISHED"

    def test_after_logging(self, mortal: Server, tmp_path: Path) -> None:
        """What was logged has reached the disk: a kill takes nothing back."""
        client = connect(mortal.address)
        bundle = result_in(tmp_path / "results")
        run_id, _ = upload_bundle(client, bundle)
        before = held_by(client, run_id, tmp_path / "before")
        mortal.kill()
        mortal.start()
        assert held_by(client, run_id, tmp_path / "after") == before


@pytest.mark.parametrize("answer_lost", [False, True], ids=["request lost", "answer lost"])
def test_every_request_cut_in_turn(
    answer_lost: bool, tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From that request on nothing gets through; a second upload over a good line makes one complete run of it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = connect(tracking_server.address)
    whole_id, _ = upload_bundle(client, result_in(tmp_path / "whole", origin=Origin("cuts")))
    expected = held_by(client, whole_id, tmp_path / "expected")
    with Proxy(tracking_server.port) as proxy:
        through = connect(proxy.address)
        for cut in itertools.count(1):
            bundle = result_in(tmp_path / str(cut), origin=Origin("cuts"))
            proxy.reset(cut, answer_lost=answer_lost)
            try:
                upload_bundle(through, bundle)
                break  # it takes fewer requests than that
            except TrackingError:
                proxy.reset()
            run_id, _ = upload_bundle(through, bundle)
            runs = all_runs(client, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'")
            assert [run.info.run_id for run in runs] == [run_id], f"request {cut}"
            found = held_by(client, run_id, tmp_path / f"found-{cut}")
            found["tags"][BUNDLE_TAG] = expected["tags"][BUNDLE_TAG]
            assert found == expected, f"request {cut}"
    assert cut > 8


def test_one_lost_connection_is_not_worth_a_word(
    tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the retries that the flows use, a single cut while logging is made good at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with Proxy(tracking_server.port) as proxy:
        client = connect(proxy.address)
        run_id = tracking.open_run(client, experiment="cuts", run_id=None, name="demo", tags={})
        proxy.reset(3, cut_until=3)
        tracking.log_bundle(client, run_id, result_in(tmp_path))
    assert connect(tracking_server.address).get_run(run_id).data.metrics["wer"] == 2.5


def test_disk_full_on_the_server(warm: Any, tmp_path: Path, empty_store: Path) -> None:
    """Artifacts do not fit: an error that names the server; with room again the upload completes the run."""
    store = served_store(tmp_path, empty_store)
    room = (tmp_path / "mlflow.db").stat().st_size + 1_000_000  # the database fits, the artifact does not

    bundle = result_in(tmp_path / "results", contents_of(), transcripts={0: "word " * room})
    with Server(tmp_path, store, warm, file_bytes=room) as server:
        client = connect(server.address)
        with pytest.raises(TrackingError, match="did not take the result"):
            upload_bundle(client, bundle)
        server.kill()
        server.file_bytes = resource.RLIM_INFINITY
        server.start()
        run_id, was_missing = upload_bundle(client, read_bundle(bundle.directory))
        assert was_missing
        sent = held_by(client, run_id, tmp_path / "found")["artifacts"]["transcripts.json"]
        assert sent == (bundle.artifacts / "transcripts.json").read_bytes()
        assert len(all_runs(client)) == 1


class TestClientKilled:
    def test_at_random_moments(self, warm: Any, tmp_path: Path, empty_store: Path) -> None:
        """After recovery every finished utterance is there exactly once, and every run has its right status."""
        address = fresh_store(tmp_path, empty_store)
        delay = 0.004
        whole = self.benchmark(warm, tmp_path / "whole", address, delay)
        assert whole.exit_status() == 0, whole.log.read_text()
        seconds = time.monotonic() - whole.started
        warmup = len(whole.ledger.read_text().splitlines()) - REPEATS * CLIPS
        moments = random.Random(32)  # noqa: S311 - moments, not secrets
        killed = []
        for number in range(CLIENT_KILLS):
            benchmark = self.benchmark(warm, tmp_path / str(number), address, delay)
            time.sleep(moments.uniform(0.1, 1.0) * seconds)
            benchmark.process.kill()
            benchmark.process.wait()
            killed.append(benchmark)

        client = connect(address)
        close_stale_runs(client)
        for folder in Path(os.environ["TMPDIR"]).glob("tmp*"):
            shutil.rmtree(folder)  # MLflow's log_text leaves its file where the process is killed
        complete = []
        for benchmark in killed:
            upload_everything(client, benchmark.results)
            complete += self.check_what_is_kept(benchmark, warmup)
        runs = all_runs(client, "tags.`whisperbench.owner` LIKE 'host%'")
        finished = [run.data.tags[BUNDLE_TAG] for run in runs if run.info.status == "FINISHED"]
        assert sorted(finished) == sorted([*complete, *(p.name for p in whole.results.iterdir())])
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
        for run in runs:
            if run.info.status == "FINISHED":
                names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
                assert {"transcripts.json", "summary.md", "environment.txt", "samples"} <= names
        statuses = {run.info.status for run in runs}
        assert statuses == {"FINISHED", "KILLED"}, "the moments were not spread over the whole command"

    @staticmethod
    def benchmark(warm: Any, directory: Path, address: str, delay: float) -> Benchmark:
        directory.mkdir()
        return Benchmark(warm, directory, address, delay=delay)

    @staticmethod
    def check_what_is_kept(benchmark: Benchmark, warmup: int) -> list[str]:
        """Each utterance that the engine handed out is on disk once; the ids of complete bundles."""
        handed_out = len(benchmark.ledger.read_text().splitlines()) - warmup if benchmark.ledger.exists() else 0
        directories = list(benchmark.results.iterdir()) if benchmark.results.exists() else []
        assert len(directories) <= 1
        kept, complete = 0, []
        for directory in directories:
            found = [(each.repeat, each.utt_id) for each in read_journal(directory)] if kept_in(directory) else []
            assert len(set(found)) == len(found)
            kept = len(found)
            if not directory.name.endswith(PARTIAL):
                complete.append(read_bundle(directory).id)
                assert kept == REPEATS * CLIPS
            else:
                assert not (directory / CONTENTS).exists() or kept == REPEATS * CLIPS
        assert kept >= handed_out - 1, "one may be on its way from the engine to the disk"
        return complete


def kept_in(directory: Path) -> bool:
    return (directory / "transcripts.jsonl").exists()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
    def test_the_run_is_killed_and_transcripts_are_kept(
        self, number: signal.Signals, warm: Any, tmp_path: Path, empty_store: Path
    ) -> None:
        """Status 128 + n within 10 s; the run says which signal it was."""
        address = fresh_store(tmp_path, empty_store)
        benchmark = Benchmark(warm, tmp_path, address, delay=0.02)
        benchmark.wait_until_transcribing()
        benchmark.process.send_signal(number)
        told = time.monotonic()
        assert benchmark.exit_status() == 128 + number, benchmark.log.read_text()
        assert time.monotonic() - told < 10
        (run,) = all_runs(connect(address))
        assert (run.info.status, run.data.tags["whisperbench.failure"]) == ("KILLED", number.name)
        (partial,) = benchmark.results.glob(f"*{PARTIAL}")
        assert len(read_journal(partial)) >= 1

    def test_offline_too(self, warm: Any, tmp_path: Path) -> None:
        """Without a server there is no run to mark; the transcripts are kept all the same."""
        benchmark = Benchmark(warm, tmp_path, "http://127.0.0.1:9", "--offline", "true", delay=0.02)
        benchmark.wait_until_transcribing()
        benchmark.process.terminate()
        assert benchmark.exit_status() == 128 + signal.SIGTERM
        assert len(list(benchmark.results.glob(f"*{PARTIAL}"))) == 1


def test_measured_offline_and_uploaded(warm: Any, tmp_path: Path, empty_store: Path) -> None:
    """No server is asked while measuring; the upload makes the run, under the name and the tags of that hour."""
    benchmark = Benchmark(warm, tmp_path, "http://127.0.0.1:9", "--offline", "true")
    assert benchmark.exit_status() == 0, benchmark.log.read_text()
    client = connect(fresh_store(tmp_path, empty_store))
    upload_everything(client, benchmark.results)
    (run,) = all_runs(client)
    assert run.info.status == "FINISHED"
    assert run.data.params["offline"] == "true"
    assert run.data.tags["mlflow.user"]
    assert len(client.get_metric_history(run.info.run_id, "repeats/reqs_per_sec")) == REPEATS


def test_soak(warm: Any, tracking_server: Server, tmp_path: Path) -> None:
    """Many runs from several processes at once on one server: none lost, none mixed with another."""
    from tests.support.processes import log_results

    numbers = [range(start, SOAK_RUNS, SOAK_PROCESSES) for start in range(SOAK_PROCESSES)]
    connect(tracking_server.address).create_experiment("soak")
    workers = [
        warm.Process(target=log_results, args=(tracking_server.address, tmp_path / str(i), list(numbers[i])))
        for i in range(SOAK_PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0] * SOAK_PROCESSES
    client = connect(tracking_server.address)
    experiment = client.get_experiment_by_name("soak").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    assert sorted(run.info.run_name for run in runs) == sorted(f"run-{number}" for number in range(SOAK_RUNS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.info.run_name == f"run-{run.data.metrics['wer']:.0f}" for run in runs)
    for run in runs[:: SOAK_RUNS // 20]:
        text = Path(client.download_artifacts(run.info.run_id, "transcripts.json", str(tmp_path))).read_text()
        assert f'said in {run.info.run_name.replace("-", " ")}"' in text
