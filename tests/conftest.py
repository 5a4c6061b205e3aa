"""What several test files share: stores and servers that take long to start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import forked_from
from tests.support.leftovers import left_after_a_while, segments
from tests.support.servers import Server, served_store
from tests.support.stores import fresh_store

LONGEST_FIRST = ("engine", "server", "slow")

MLFLOW_VARIABLES = (
    *("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)


def pytest_configure() -> None:
    """Workers share the cores: threads that wait for each other on busy cores take many times as long."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // int(workers)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file all of whose tests `-m` excludes is not imported: each worker imports all others, and torch for some."""
    excluded = {name for part in config.option.markexpr.split(" and ") for name in re.findall(r"^not (\w+)$", part)}
    if not excluded or collection_path.suffix != ".py":
        return None
    marks = re.search(r"^pytestmark = .*?(?=^\S|\Z)", collection_path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return bool(marks and excluded & set(re.findall(r"pytest\.mark\.(\w+)", marks[0]))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of tests that take long come first: in the end no worker is left alone with one."""
    ranks: dict[Path, int] = {}
    for item in items:
        marked = [rank for rank, name in enumerate(LONGEST_FIRST) if item.get_closest_marker(name)]
        ranks[item.path] = min([ranks.get(item.path, len(LONGEST_FIRST)), *marked])
    items.sort(key=lambda item: ranks[item.path])


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
    from whisperbench.tracking.connection import connect

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
