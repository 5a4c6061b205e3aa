"""Faults of a server: each is caused for real, and nothing that was measured is lost.

| fault | how it is caused | what must hold afterwards |
|---|---|---|
| server down | the real server is killed while the benchmark transcribes | status 3, bundle, upload completes it |
| connection cut | a proxy cuts a request, before or after the server saw it | one run, complete |
| disk full on the server | the server may not write files beyond a few bytes | status 3, bundle, upload completes it |

tests/smoke has signals and a full disk of the client, tests/engine the death of an engine, tests/nightly every request
cut and SIGKILL at random moments.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import contents_of, held_by, result_in
from tests.support.commands import FAKE_BENCHMARK, lines_in, start, wait_until
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.servers import Proxy, Server, served_store
from tests.support.stores import all_runs
from whisperbench.errors import TrackingError
from whisperbench.results.bundle import Origin, read_bundle, unlogged_bundles, upload_command
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.upload import find_bundles, upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

REPEATS, CLIPS = 6, 8
POSITIONS = (1, 2, 3, 4, 6, 8, 10, 12)
"""Requests of an upload that are cut here; tests/nightly cuts each of them."""


class Benchmark:
    """The benchmark command, with a fake engine and on the demo corpus by default, in a process of its own."""

    def __init__(
        self,
        directory: Path,
        address: str,
        *,
        delay: float = 0.0,
        words: tuple[str, ...] = FAKE_BENCHMARK,
        **options: object,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.results, self.log, self.ledger = directory / "results", directory / "out.log", directory / "ledger"
        given = {"model": "demo", "corpus": "demo", "repeats": REPEATS, "results_dir": self.results, **options}
        variables = {
            **{"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
            **{DELAY_VARIABLE: str(delay), LEDGER_VARIABLE: str(self.ledger)},
        }
        self.process: subprocess.Popen[str] = start(words, directory, given, log=self.log, **variables)

    def wait_until_transcribing(self) -> None:
        """Return when more texts exist than the warm-up has."""
        wait_until(lambda: lines_in(self.ledger) >= CLIPS + 3, self.process, self.log)

    def exit_status(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)


def upload_everything(client: Any, results: Path) -> None:
    if unlogged_bundles(results):
        for path in find_bundles(str(results)):
            upload_bundle(client, read_bundle(path))


def test_the_server_is_killed(tmp_path: Path, empty_store: Path) -> None:
    """Status 3, the bundle's path and the command; the upload finishes the same run."""
    with Server(tmp_path, served_store(tmp_path, empty_store)) as server:
        benchmark = Benchmark(tmp_path, server.address, delay=0.01)
        benchmark.wait_until_transcribing()
        server.kill()
        assert benchmark.exit_status() == 3
        (bundle,) = (read_bundle(path) for path in unlogged_bundles(benchmark.results))
        printed = benchmark.log.read_text()
        assert str(bundle.directory) in printed
        assert upload_command(bundle.directory) in printed
        server.start()
        client = connect(server.address)
        upload_everything(client, benchmark.results)
        (run,) = all_runs(client)
        assert (run.info.run_id, run.info.status) == (bundle.origin.run_id, "FINISHED")
        assert bundle.contents.metrics.keys() <= run.data.metrics.keys()


class Cuts:
    """Uploads through a proxy that cuts them at a request and everything after it."""

    def __init__(self, server: Server, proxy: Proxy, folder: Path, *, answer_lost: bool) -> None:
        self.client, self.proxy, self.folder, self.answer_lost = connect(server.address), proxy, folder, answer_lost
        self.through = connect(proxy.address)
        full_id, _ = upload_bundle(self.client, result_in(folder / "whole", origin=Origin("cuts")))
        self.expected = held_by(self.client, full_id, folder / "expected")

    def repaired(self, request: int) -> bool:
        """Whether that request was cut; then a second upload has made one complete run of it."""
        bundle = result_in(self.folder / str(request), origin=Origin("cuts"))
        self.proxy.reset(request, answer_lost=self.answer_lost)
        try:
            upload_bundle(self.through, bundle)
        except TrackingError:
            self.proxy.reset()
        else:
            return False  # an upload takes fewer requests than that
        run_id, _ = upload_bundle(self.through, bundle)
        runs = all_runs(self.client, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'")
        assert [run.info.run_id for run in runs] == [run_id], f"request {request}"
        found = held_by(self.client, run_id, self.folder / f"found-{request}")
        found["tags"][BUNDLE_TAG] = self.expected["tags"][BUNDLE_TAG]
        found["artifacts"]["config.json"] = self.expected["artifacts"]["config.json"]  # has the results_dir
        assert found == self.expected, f"request {request}"
        return True


@pytest.mark.parametrize("answer_lost", [False, True], ids=["request lost", "answer lost"])
def test_a_request_is_cut(
    answer_lost: bool, tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From that request on nothing reaches the server; a second upload completes the one run."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Proxy(tracking_server.port) as proxy:
        cuts = Cuts(tracking_server, proxy, tmp_path, answer_lost=answer_lost)
        assert all(cuts.repaired(request) for request in POSITIONS)


def test_one_lost_connection_is_retried(
    tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the retries that the commands use, a single cut while logging fails nothing."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with Proxy(tracking_server.port) as proxy:
        client = connect(proxy.address)
        run_id = tracking.open_run(client, experiment="cuts", run_id=None, name="demo", tags={})
        proxy.reset(3, cut_until=3)
        tracking.log_bundle(client, run_id, result_in(tmp_path))
    assert connect(tracking_server.address).get_run(run_id).data.metrics["wer"] == 2.5


def test_disk_full_on_the_server(tmp_path: Path, empty_store: Path) -> None:
    """Artifacts do not fit: an error that names the server; with room again the upload completes the run."""
    store = served_store(tmp_path, empty_store)
    room = (tmp_path / "mlflow.db").stat().st_size + 1_000_000  # the database fits, the artifact does not
    bundle = result_in(tmp_path / "results", contents_of(), transcripts={0: "word " * room})
    with Server(tmp_path, store, file_bytes=room) as server:
        client = connect(server.address)
        with pytest.raises(TrackingError, match="failed to log"):
            upload_bundle(client, bundle)
        server.kill()
        server.file_bytes = resource.RLIM_INFINITY
        server.start()
        run_id, was_missing = upload_bundle(client, read_bundle(bundle.directory))
        assert was_missing
        sent = held_by(client, run_id, tmp_path / "found")["artifacts"]["transcripts.json"]
        assert sent == (bundle.artifacts / "transcripts.json").read_bytes()
        assert len(all_runs(client)) == 1
