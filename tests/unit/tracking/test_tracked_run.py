"""A run ends with the right status, whatever ends it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import interrupt
from tests.support.stores import fresh_store
from whisperbench.errors import EngineError
from whisperbench.processes.signals import Interrupted
from whisperbench.tracking.client import connect
from whisperbench.tracking.tracked_run import tracked_run

pytestmark = pytest.mark.usefixtures("no_project_run")


@pytest.fixture
def client(tmp_path: Path, empty_store: Path) -> Any:
    return connect(fresh_store(tmp_path, empty_store))


def test_finished(client: Any) -> None:
    """A block that ends."""
    with tracked_run(client, "demo") as run:
        pass
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_failed(client: Any) -> None:
    """A block that raises, with the cause in a tag."""
    with pytest.raises(EngineError), tracked_run(client, "demo") as run:
        raise EngineError("out of memory")
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.tags["whisperbench.failure"]) == ("FAILED", "out of memory")


def test_killed(client: Any) -> None:
    """A signal."""
    with pytest.raises(Interrupted), tracked_run(client, "demo") as run:
        interrupt()
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.tags["whisperbench.failure"]) == ("KILLED", "SIGTERM")


def test_killed_whatever_became_of_the_exception(client: Any) -> None:
    """Libraries that turn every exception into their own do not hide a signal."""
    with pytest.raises(RuntimeError), tracked_run(client, "demo") as run:  # noqa: PT012 - raised in the middle of what follows
        try:
            interrupt()
        except BaseException as error:
            raise RuntimeError("engine dead") from error
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_a_run_inside_a_run(client: Any) -> None:
    """A signal ends both as killed: a sweep and the run it was at."""
    with pytest.raises(Interrupted), tracked_run(client, "sweep") as outer, tracked_run(client, "child") as inner:
        interrupt()
    assert {client.get_run(run.run_id).info.status for run in (outer, inner)} == {"KILLED"}


def test_a_signal_before_the_run_is_open(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no run behind that nobody closes."""
    monkeypatch.setattr(client, "create_run", lambda *_, **__: interrupt())
    with pytest.raises(Interrupted), tracked_run(client, "demo"):
        pytest.fail("the block must not begin")
    assert client.search_runs(["0"]) == []


def test_a_signal_while_the_run_is_closed(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends as killed, and is not left RUNNING."""
    really = client.set_terminated

    def interrupted(*_: Any) -> None:
        monkeypatch.setattr(client, "set_terminated", really)
        interrupt()

    monkeypatch.setattr(client, "set_terminated", interrupted)
    with pytest.raises(Interrupted), tracked_run(client, "demo") as run:
        pass
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_a_clock_that_is_set_back(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not end before its start."""
    with tracked_run(client, "demo") as run:
        set_back = time.time() - 3600
        monkeypatch.setattr(time, "time", lambda: set_back)
        monkeypatch.setattr(time, "time_ns", lambda: int(set_back * 1e9))
    info = client.get_run(run.run_id).info
    assert info.end_time >= info.start_time


def test_a_server_that_is_gone_does_not_hide_the_cause(client: Any, tmp_path: Path) -> None:
    """The first error is the one that is told."""
    with pytest.raises(EngineError, match="out of memory"), tracked_run(client, "demo"):  # noqa: PT012 - raised in the middle of what follows
        (tmp_path / "mlflow.db").write_bytes(b"no database")
        raise EngineError("out of memory")
