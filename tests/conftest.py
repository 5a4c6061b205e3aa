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

from tests.support.corpora import SAMPLE
from tests.support.leftovers import left_after_a_while, segments
from tests.support.servers import Server, served_store
from tests.support.stores import fresh_store
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.files import cache_directory

MLFLOW_VARIABLES = (
    *("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)
TIMEOUTS = {"unit": 60, "smoke": 400, "integration": 400, "engine": 900, "nightly": 1800}
"""Seconds for one test with its fixtures, by directory; on an idle machine none takes a third of it."""


def pytest_configure() -> None:
    """Divide the cores among the workers: threads that wait for each other on busy cores take many times as long."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // int(workers)))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Limit each test by its directory; a mark of its own takes precedence."""
    item.add_marker(pytest.mark.timeout(TIMEOUTS[item.path.relative_to(Path(__file__).parent).parts[0]]))


@pytest.fixture(scope="session")
def librispeech_sample() -> Path:
    """The folder of the 60 utterances of LibriSpeech, which is not part of the repository."""
    if not SAMPLE.is_dir():
        pytest.skip(f"The LibriSpeech sample is not at {SAMPLE}; set WHISPERBENCH_SAMPLE to its folder.")
    return SAMPLE


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of an empty SQLite store, which is made once and copied by `fresh_store`."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers, beside their folders
        return tmp_path_factory.getbasetemp().parent / "mlflow.db"
    return tmp_path_factory.mktemp("template") / "mlflow.db"


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A real tracking server that serves artifacts; shared, so that tests look at their own runs only."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, served_store(directory, empty_store)) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def signals_arrive() -> None:
    """Undo an ignored SIGINT or SIGHUP, which a shell sets for background jobs and which processes inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a fresh store, which the commands use too."""
    from whisperbench.tracking.client import connect

    address = fresh_store(tmp_path, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return connect(address)


@pytest.fixture
def no_project_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run outside `mlflow run` and without credentials, whatever starts the tests."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the processes of a test a temporary directory of their own; at the end it holds no file, none of them is
    left, and no new segment of shared memory is unused."""
    directory, before = Path(tempfile.mkdtemp(prefix="wb-")), segments()  # short: sockets lie in it
    monkeypatch.setenv("TMPDIR", str(directory))
    yield
    left = left_after_a_while(directory, before)
    shutil.rmtree(directory)
    assert left == []


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """The demo's weights, OpenAI's tiny.en, which are converted once on each machine."""
    return resolve_model("demo", "main", cache_dir=cache_directory(), random_weights=False)
