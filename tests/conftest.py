"""Fixtures of several test modules: stores, servers, corpora and checkpoints."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import forked_from
from tests.support.corpora import SAMPLE, SAMPLE_SPLITS
from tests.support.leftovers import left_after_a_while, segments
from tests.support.servers import Server, served_store
from tests.support.stores import fresh_store
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.corpus.corpus import Utterance, load_corpus

MLFLOW_VARIABLES = (
    *("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)


def pytest_configure() -> None:
    """Workers share the cores: threads that wait for each other on busy cores take many times as long."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // int(workers)))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an empty SQLite store is, made once and copied by whoever needs one (`fresh_store`)."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers, beside their folders
        return tmp_path_factory.getbasetemp().parent / "mlflow.db"
    return tmp_path_factory.mktemp("template") / "mlflow.db"


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, warm: Any) -> Iterator[Server]:
    """A real tracking server that serves artifacts; shared, so that tests look at their own runs only."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, served_store(directory, empty_store), warm) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def signals_arrive() -> None:
    """Where tests are started in the background SIGINT or SIGHUP is ignored, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a fresh store, which the flows use too."""
    from whisperbench.tracking.client import connect

    address = fresh_store(tmp_path, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return connect(address)


@pytest.fixture
def no_project_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever starts the tests, they run outside `mlflow run` and as nobody in particular."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test starts has a temporary directory of its own; in the end no file is in it, no process is left that
    had it, and no segment of shared memory is there that nobody uses."""
    directory, before = Path(tempfile.mkdtemp(prefix="wb-")), segments()  # short: sockets lie in it
    monkeypatch.setenv("TMPDIR", str(directory))
    yield
    left = left_after_a_while(directory, before)
    shutil.rmtree(directory)
    assert left == []


@pytest.fixture(scope="session")
def warm() -> Any:
    """Processes that are forked from one that has MLflow and the flows imported (`support.commands`)."""
    return forked_from("tests.support.processes")


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    """The 60 utterances of the sample; the 8 demo clips where there is no sample."""
    if not SAMPLE.exists():
        return list(load_corpus("demo", "all", None).utterances)
    return [u for split in SAMPLE_SPLITS for u in load_corpus(str(SAMPLE), split, None).utterances]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_model("demo", "main", cache_dir=tmp_path_factory.mktemp("cache"), random_weights=False)
