"""Nothing outlives its purpose: which process watches which, and what ends it.

    mlflow run, or a sweep ── starts ──> a flow ── starts ──> an engine and its workers

| what happens | who notices | what it does |
|---|---|---|
| Ctrl-C, SIGTERM or SIGHUP reaches a flow | its signal handler, here | raises `Interrupted`: each `finally` runs |
| closing hangs, or a library swallows `Interrupted` | a thread of the handler, here | kills the engine, then exits |
| `mlflow run` or the sweep above is gone | `watch`, for `launcher` | SIGTERM to the flow itself |
| a flow is killed, or its work raises | `orphans`: a guardian process, `no_orphans` | kills what the flow had started |
| an engine's process is gone, its client waits | `watch`, for `engines.vllm_watch` | tells the client, which raises |
| an engine, or its start, makes no progress | `engines.pulse` | kills it; its client is told as above |
| a start ends before vLLM takes the process begun for it | `engines.vllm_prestart` | ends that process |
| one of several engines is silent or stalls | `engines.parallel.engine` | kills that one; the others go on |
| a killed one leaves shared memory, sockets | `leftovers`: the guardian, the next start | removes what it had noted |
| a sweep's run ends, takes too long, is stopped | `process_group` | ends every process of its group |
| `mlflow run` turns KILLED into FAILED | `tracking.killed_status`, outliving both | turns it back |
| a flow was killed and its run is still RUNNING | `owner`, for `tracking.stale` | the next flow closes the run |
| a sweep was killed, what it had started works on | `owner`, for `tracking.sweep_runs` | the next sweep waits for it |

Why each is needed, and the tests that fail without it:

- The handler: without it Python ends at once on SIGTERM, and nobody closes the engine or the run.
  `test_killed`, `test_a_sigterm_closes_the_child_and_the_parent`
- The thread: an exception can get lost in a destructor or in a library that catches everything, and an engine can
  hang while it stops.  `test_children_are_ended_when_the_closing_hangs`,
  `test_a_process_that_swallows_the_signal_is_ended`
- Following the launcher: a killed `mlflow run` or sweep leaves its project's process running.
  `test_its_death_is_a_sigterm`, `test_killed_and_no_orphan` (SIGTERM and SIGKILL to mlflow run),
  `test_what_is_missing_after_a_sigkill_is_exactly_what_the_next_start_runs`
- The guardian: no code of a process that gets SIGKILL runs, and an engine that is half up notices nothing.
  `test_descendants_end_with_a_killed_process_only`
- `no_orphans` when its block raises: a signal may arrive when the engine has processes, but no `close` yet.
  `test_descendants_end_with_a_block_that_raises`
- The engine's watch: vLLM's client (0.26 to 0.32) waits for the next output of a killed engine for ever.
  `test_a_client_is_told_that_its_engine_is_gone`, `test_a_real_engine_that_dies_is_reported`
- The pulse: an engine that is stopped is not gone, and its client waits for ever.
  `test_a_stopped_process_is_ended`, `test_a_start_whose_process_is_stopped_is_ended`,
  `test_a_real_engine_that_stops_is_ended`
- The process begun early: it would wait for its work, which nobody has any more.
  `test_an_idle_one_ends_with_the_block`
- The loop of several engines: the pulse would end all of them for the one that hangs, and does not reach other hosts.
  `test_a_worker_that_does_not_answer_fails`, `test_an_engine_that_stalls_fails`
- The leftovers: Python's tracker of shared memory is spared by `orphans.kill`, but a batch system kills it with the
  rest.  `test_shared_memory_of_the_killed_is_removed`, `test_segments_of_the_dead`
- The group: its leader may be gone while others of the group live, which are no descendants of the sweep any more.
  `test_nothing_of_its_group_is_left`, `test_one_that_ignores_sigterm`, `test_what_tick_raises_ends_it`
- The status: MLflow 3.17 writes FAILED over KILLED after the project has ended, so a process must outlive `mlflow run`.
  `test_killed_and_no_orphan` (Ctrl-C)
- The owner: after a SIGKILL or a power cut nobody of then is left who could close the run.
  `test_runs_of_dead_processes_are_closed`, `test_dead_only_where_it_is_certain`
- The wait: a configuration whose sweep was killed holds the GPU for some seconds more; one that starts beside it would
  measure two at once.  `test_a_configuration_that_outlives_its_sweep_is_waited_for`

"Gone" is said of a process of this machine (`orphans.is_gone`).  "Dead" is said of the owner that a run names, which
may be another host's or from before a reboot, and only where it is certain (`owner.Process.is_dead`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from whisperbench.supervise.launcher import launcher
from whisperbench.supervise.orphans import descendants, kill
from whisperbench.supervise.watch import ProcessWatch

if TYPE_CHECKING:
    import psutil

ENGINE_SECONDS = 2.0
"""After a signal the engine has this long to end by itself; then its processes are killed."""
EXIT_SECONDS = 30.0
"""And this process has this long to close its run; then it ends as it is."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; raised in the main thread, so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


@contextlib.contextmanager
def signals_raise() -> Iterator[list[Interrupted]]:
    """Inside the block the first signal raises `Interrupted`; the death of the launcher is a SIGTERM.

    Yields what was raised, whatever became of it.  A signal that is ignored already (`nohup`) stays ignored.
    """
    raised: list[Interrupted] = []
    started_before = descendants()
    done = threading.Event()
    watch = None

    def handler(number: int, _frame: FrameType | None) -> NoReturn:
        raised.append(Interrupted(number))
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)  # once is enough: let the engine be closed in peace
        threading.Thread(target=_insist, args=(raised[0], done, started_before), name="insist", daemon=True).start()
        raise raised[0]

    handlers = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in handlers:
            signal.signal(number, handler)
        if (followed := launcher()) is not None:
            watch = ProcessWatch([followed], _stop)
        yield raised
    finally:
        done.set()
        if watch:
            watch.stop()
        for number, before in handlers.items():
            signal.signal(number, before)
    if raised:  # and lost in the block, which went on to its end: a decoder that calls back into Python drops it
        raise raised[0]


def _insist(interrupted: Interrupted, done: threading.Event, started_before: set[psutil.Process]) -> None:
    """An exception can get lost (in a destructor, in a library that catches everything): make sure of the end."""
    if done.wait(ENGINE_SECONDS):
        return
    kill(descendants() - started_before)
    if not done.wait(EXIT_SECONDS - ENGINE_SECONDS):
        os._exit(interrupted.exit_status)


def _stop() -> None:
    """A `mlflow run` that is killed leaves its project running; end it as if it had been killed too."""
    sys.stderr.write("the process that started this one is gone: stopping\n")
    os.kill(os.getpid(), signal.SIGTERM)
