"""From the first to the last moment of a tracked run: signals, statuses, and no process left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from whisperbench import tracking
from whisperbench.errors import TrackingError, WhisperbenchError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_POLL_SECONDS = 1.0


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; raised in the main thread, so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    client: MlflowClient
    run_id: str

    def where(self) -> str:
        """The run's page, or how to open it where no server runs."""
        if url := tracking.run_url(self.client, self.run_id):
            return f"run: {url}"
        experiment_id = self.client.get_run(self.run_id).info.experiment_id
        return (
            f"look: mlflow ui --backend-store-uri {tracking.without_password(self.client.tracking_uri)}\n"
            f"run:  http://127.0.0.1:5000/{tracking.run_path(experiment_id, self.run_id)}"
        )


@contextlib.contextmanager
def tracked_run(client: MlflowClient, name: str, tags: dict[str, str] | None = None) -> Iterator[TrackedRun]:
    """Open a run (or attach to the one that `mlflow run` has started) and end it with the right status.

    FINISHED when the block ends, FAILED with the cause in a tag when it raises, KILLED on a signal.
    """
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    run_id = os.environ.get("MLFLOW_RUN_ID")
    run_id = tracking.open_run(client, experiment=experiment, run_id=run_id, name=name, tags=tags or {})
    status, failure = "FAILED", None
    try:
        with signals_raise():
            yield TrackedRun(client, run_id)
        status = "FINISHED"
    except Interrupted as signalled:
        status, failure = "KILLED", str(signalled)
        raise
    except BaseException as error:
        failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        # A server that is away must not hide why the run ended.
        with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
            tracking.close_run(client, run_id, status, failure)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM raise `Interrupted`; the death of `mlflow run` is a SIGTERM."""

    def handler(number: int, _frame: FrameType | None) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # once is enough: let the engine be closed in peace
        raise Interrupted(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = threading.Event()
    if "MLFLOW_RUN_ID" in os.environ and (launcher := _launcher()) is not None:
        threading.Thread(target=_follow, args=(launcher, stop), name="launcher-watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        for number, previous in before.items():
            signal.signal(number, previous)


def exit_status(signalled: Interrupted) -> int:
    return 128 + signalled.number


def _launcher() -> int | None:
    """The process id of the `mlflow run` above this process, which may be a shell or two away."""
    import psutil

    for parent in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            words = parent.cmdline()
            if "run" in words and any(os.path.basename(word).startswith("mlflow") for word in words[:3]):  # noqa: PTH119
                return int(parent.pid)
    return None


def _follow(launcher: int, stop: threading.Event) -> None:
    """A `mlflow run` that is killed leaves its project running; end it as if it had been killed too."""
    import psutil

    while not stop.wait(PARENT_POLL_SECONDS):
        if not psutil.pid_exists(launcher):
            sys.stderr.write("mlflow run is gone: stopping\n")
            os.kill(os.getpid(), signal.SIGTERM)
            return
