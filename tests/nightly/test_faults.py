"""Faults in every place and at random moments: each request of an upload cut, 13 things that break.

SEED=2 in the environment gives other moments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import psutil
import pytest

from tests.integration.test_faults import CLIPS, POSITIONS, REPEATS, Benchmark, Cuts, upload_everything
from tests.support.commands import FAKE_BENCHMARK, called, command, lines_in
from tests.support.servers import Proxy, Server, served_store
from whisperbench.corpus.corpus import DEMO
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL, read_bundle
from whisperbench.results.recording import TRANSCRIPTS, read_journal
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.tracked_run import close_stale_runs

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

SEED = os.environ.get("SEED", "1")
DELAY = 0.05


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


@dataclasses.dataclass
class Scene:
    """A benchmark that works, and what is around it."""

    benchmark: Benchmark
    corpus: Path
    server: Server
    proxy: Proxy
    chance: random.Random

    def engine(self) -> list[psutil.Process]:
        return called("VLLM", psutil.Process(self.benchmark.process.pid).children(recursive=True))


def stop(processes: Sequence[psutil.Process], seconds: float) -> None:
    """SIGSTOP, and SIGCONT after so many seconds."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        time.sleep(seconds if number == signal.SIGSTOP else 0)


def kill_engine(scene: Scene) -> None:
    for process in scene.engine():
        process.kill()


def fill_disk(scene: Scene) -> None:
    """The benchmark may write no file beyond a few kB from now on."""
    room = scene.chance.randrange(30_000)
    psutil.Process(scene.benchmark.process.pid).rlimit(psutil.RLIMIT_FSIZE, (room, room))


def damage_audio(scene: Scene) -> None:
    file = scene.chance.choice(sorted(scene.corpus.glob("*.flac")))
    file.write_bytes(file.read_bytes()[: scene.chance.randrange(2_000)])


def lock_store(scene: Scene) -> None:
    database = sqlite3.connect(scene.server.directory / "mlflow.db", timeout=60, isolation_level=None)
    with contextlib.closing(database):
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(scene.chance.uniform(1, 30))
        database.execute("ROLLBACK")


@dataclasses.dataclass(frozen=True)
class Fault:
    cause: Callable[[Scene], object]
    statuses: set[int]
    """Of the command, if it had not ended before; until handlers exist, signals end Python with -2 and -15."""
    rounds: int = 2
    real: bool = False
    """With the real engine."""


FAULTS = {
    "engine killed": Fault(kill_engine, {0, 1}, real=True),
    "engine stopped": Fault(lambda s: stop(s.engine(), s.chance.uniform(1, 20)), {0}, 1, real=True),
    "command killed": Fault(lambda s: s.benchmark.process.kill(), {0, -9}, rounds=20),
    "command terminated": Fault(lambda s: s.benchmark.process.terminate(), {0, 143, -15}),
    "command interrupted": Fault(lambda s: s.benchmark.process.send_signal(signal.SIGINT), {0, 130, -2}),
    "command stopped": Fault(lambda s: stop([psutil.Process(s.benchmark.process.pid)], s.chance.uniform(1, 20)), {0}),
    "server killed": Fault(lambda s: s.server.kill(), {0, 3}),
    "server hangs": Fault(lambda s: setattr(s.proxy, "drips", True), {0, 3}, 1),
    "server answers with a page": Fault(lambda s: setattr(s.proxy, "swallows", b""), {0, 3}),
    "store locked": Fault(lock_store, {0, 3}),
    "disk full": Fault(fill_disk, {0, 1, 2}),
    "audio damaged": Fault(damage_audio, {0, 1, 2}),
    "results removed": Fault(lambda s: shutil.rmtree(s.benchmark.results, ignore_errors=True), {0, 1}),
}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A tracking server that tests kill and start again."""
    directory = tmp_path_factory.mktemp("own")
    with Server(directory, served_store(directory, empty_store)) as server:
        yield server


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_random_moments(
    name: str, own_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After recovery every finished utterance is there exactly once, and every run has its right status."""
    fault, chance = FAULTS[name], random.Random(f"{SEED} {name}")  # noqa: S311 - moments, not secrets
    words = command("benchmark") if fault.real else FAKE_BENCHMARK
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    experiment = connect(own_server.address).create_experiment(name)
    started = time.monotonic()
    whole = Benchmark(tmp_path / "whole", own_server.address, delay=DELAY, words=words)
    assert whole.exit_status(600) == 0, whole.log.read_text()
    seconds = time.monotonic() - started
    warmup = None if fault.real else lines_in(whole.ledger) - REPEATS * CLIPS
    benchmarks = [whole]
    for number in range(fault.rounds):
        corpus = shutil.copytree(DEMO, tmp_path / str(number) / "corpus")
        with Proxy(own_server.port) as proxy:
            benchmark = Benchmark(tmp_path / str(number), proxy.address, delay=DELAY, words=words, corpus=corpus)
            benchmarks.append(benchmark)
            with contextlib.suppress(TimeoutExpired):
                benchmark.exit_status(chance.uniform(0.1, 1.0) * seconds)
            works = benchmark.process.poll() is None
            if works:
                fault.cause(Scene(benchmark, corpus, own_server, proxy, chance))
            assert benchmark.exit_status(600) in (fault.statuses if works else {0}), benchmark.log.read_text()
        if name == "server killed":
            own_server.start()
    client = connect(own_server.address)
    close_stale_runs(client)
    for folder in Path(os.environ["TMPDIR"]).glob("tmp*"):
        shutil.rmtree(folder)  # MLflow's log_text leaves its file where the process is killed
    complete = set()
    for benchmark in benchmarks:
        upload_everything(client, benchmark.results)
        removed = name == "results removed" and benchmark is not whole
        complete |= check_what_is_kept(benchmark, None if removed else warmup)
    logged = check_the_runs(client, experiment)
    assert complete <= logged if name == "results removed" else complete == logged


def check_the_runs(client: Any, experiment: str) -> set[str]:
    """Each result is logged once, with every artifact, and no run is left running; ids of finished results."""
    runs = client.search_runs([experiment], max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    finished = [run for run in runs if run.info.status == "FINISHED"]
    logged = {run.data.tags[BUNDLE_TAG] for run in finished}
    assert len(logged) == len(finished)
    for run in finished:
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"transcripts.json", "summary.md", "environment.txt", "samples"} <= names
    return logged


def check_what_is_kept(benchmark: Benchmark, warmup: int | None) -> set[str]:
    """Each utterance that the engine returned is on disk once (None: how many is unknown); ids of complete bundles."""
    returned = 0 if warmup is None else lines_in(benchmark.ledger) - warmup
    directories = list(benchmark.results.iterdir()) if benchmark.results.exists() else []
    assert len(directories) <= 1
    kept, complete = 0, set[str]()
    for directory in directories:
        read = read_journal(directory) if (directory / TRANSCRIPTS).exists() else ()
        found = [(result.repeat, result.utt_id) for result in read]
        assert len(set(found)) == len(found)
        kept = len(found)
        if not directory.name.endswith(PARTIAL):
            complete.add(read_bundle(directory).id)
            assert kept == REPEATS * CLIPS
        else:
            assert not (directory / BUNDLE_FILE).exists() or kept == REPEATS * CLIPS
    assert kept >= returned - 1, "one may be between the engine and the disk"
    return complete
