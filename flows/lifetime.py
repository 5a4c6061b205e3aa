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

from flows.aftermath import mark_killed_after
from flows.guardian import descendants, kill
from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.supervise.owner import is_gone
from whisperbench.tracking import write as tracking

if TYPE_CHECKING:
    import psutil
    from mlflow import MlflowClient

    from whisperbench.results.bundle import Origin

PARENT_POLL_SECONDS = 1.0
ENGINE_SECONDS = 2.0
"""After a signal the engine has this long to end by itself; then its processes are killed."""
EXIT_SECONDS = 30.0
"""And this process has this long to close its run; then it ends as it is."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


LAUNCHER = "WHISPERBENCH_LAUNCHER_PID"
"""Set by a sweep for the processes that it starts: when the one of that number is gone, they stop."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; raised in the main thread, so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    client: MlflowClient
    run_id: str

    def origin(self) -> Origin:
        return tracking.origin_of(self.client, self.run_id)

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
def tracked_run(
    client: MlflowClient, name: str, tags: dict[str, str] | None = None, run_id: str | None = None
) -> Iterator[TrackedRun]:
    """Open a run (or attach to `run_id`, or the one that `mlflow run` has started) and end it with the right status.

    FINISHED when the block ends, FAILED with the cause in a tag when it raises, KILLED on a signal.
    """
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    run_id = run_id or os.environ.get("MLFLOW_RUN_ID")
    before = descendants()
    with signals_raise() as arrived:
        run_id = tracking.open_run(client, experiment=experiment, run_id=run_id, name=name, tags=tags or {})
        status, failure = "FAILED", None
        try:
            yield TrackedRun(client, run_id)
            status = "FINISHED"
        except Interrupted as signalled:  # also one that a block inside this one was told of
            status, failure = "KILLED", str(signalled)
            raise
        except BaseException as error:
            failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if arrived:  # whatever it looked like to the code that was interrupted
                status, failure = "KILLED", signal.Signals(arrived[0]).name
                kill(descendants() - before)
            _close(client, run_id, status, failure)
            if (
                status == "KILLED"
                and run_id == os.environ.get("MLFLOW_RUN_ID")
                and LAUNCHER not in os.environ  # a sweep leaves a status alone, or knows better
                and (launcher := _launcher()) is not None
            ):
                mark_killed_after(launcher, run_id)


def _close(client: MlflowClient, run_id: str, status: str, failure: str | None) -> None:
    # A server that is away must not hide why the run ended.
    with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
        try:
            tracking.close_run(client, run_id, status, failure)
        except Interrupted as signalled:
            tracking.close_run(client, run_id, "KILLED", str(signalled))
            raise


@contextlib.contextmanager
def signals_raise() -> Iterator[list[int]]:
    """Inside the block the first signal raises `Interrupted`; the death of `mlflow run` is a SIGTERM.

    Yields the signals that arrived.  A signal that is ignored already (`nohup`) stays ignored.
    """
    arrived: list[int] = []
    children = descendants()
    done = threading.Event()

    def handler(number: int, _frame: FrameType | None) -> NoReturn:
        arrived.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough: let the engine be closed in peace
        threading.Thread(target=_insist, args=(number, done, children), name="insist", daemon=True).start()
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    if "MLFLOW_RUN_ID" in os.environ and (launcher := _launcher()) is not None:
        threading.Thread(target=_follow, args=(launcher, done), name="launcher-watch", daemon=True).start()
    try:
        yield arrived
    finally:
        done.set()
        for number, previous in before.items():
            signal.signal(number, previous)


def exit_status(signalled: Interrupted) -> int:
    return 128 + signalled.number


def _insist(number: int, done: threading.Event, before: set[psutil.Process]) -> None:
    """An exception can get lost (in a destructor, in a library that catches everything): make sure of the end."""
    if done.wait(ENGINE_SECONDS):
        return
    kill(descendants() - before)
    if not done.wait(EXIT_SECONDS - ENGINE_SECONDS):
        os._exit(128 + number)


def _launcher() -> int | None:
    """The process id of the sweep that started this process, or of the `mlflow run` a shell or two above it."""
    import psutil

    if (told := os.environ.get(LAUNCHER, "")).isdecimal():
        return int(told)
    for parent in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            words = parent.cmdline()
            if "run" in words and any(os.path.basename(word).startswith("mlflow") for word in words[:3]):  # noqa: PTH119
                return int(parent.pid)
    return None


def _follow(launcher: int, done: threading.Event) -> None:
    """A `mlflow run` that is killed leaves its project running; end it as if it had been killed too."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        followed = psutil.Process(launcher)
        while not is_gone(followed):
            if done.wait(PARENT_POLL_SECONDS):
                return
    sys.stderr.write("the process that started this one is gone: stopping\n")
    os.kill(os.getpid(), signal.SIGTERM)
