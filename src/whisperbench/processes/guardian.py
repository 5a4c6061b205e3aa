"""Guardian process: it kills the descendants of a client process after the client was killed.

Without it, an engine that is still starting would continue without its client and occupy the GPU.  The guardian is
started as `python guardian.py <process id> <marker>`, and ends without killing a process if it reads `done` from its
standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import psutil

MARKER = "WHISPERBENCH_CLIENT"
"""Environment variable of descendants: `<process id>-<start time>` of the client."""
POLL_SECONDS = 0.5
DONE = b"done"


@contextlib.contextmanager
def kill_children_on_exit() -> Iterator[None]:
    """Kill child processes that would otherwise outlive the block.

    If this process is killed inside the block, the guardian kills its descendants within a second.  If the block raises
    an exception, the processes that were started inside it are killed.
    """
    before, outer = descendants(), os.environ.pop(MARKER, None)
    marker = f"{os.getpid()}-{psutil.Process().create_time()}"
    command = [sys.executable, "-P", __file__, str(os.getpid()), marker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as guardian:  # noqa: S603 - this file
        os.environ[MARKER] = marker
        try:
            guardian.wait()  # it has forked: `main` continues in the child
            yield
        except BaseException:
            kill(descendants() - before)
            raise
        finally:
            guardian.communicate(DONE)
            del os.environ[MARKER]
            if outer is not None:
                os.environ[MARKER] = outer


def descendants() -> set[psutil.Process]:
    """Children of this process, and their descendants."""
    return set(psutil.Process().children(recursive=True))


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to each process and its descendants, except Python's resource tracker.

    The resource tracker removes the shared memory of the killed processes and then exits.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    if not is_tracker(each):
                        each.kill()


def is_tracker(process: psutil.Process) -> bool:
    """Whether a process is the resource tracker of Python's multiprocessing."""
    return any("resource_tracker" in word for word in process.cmdline())


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended or is a zombie, which holds no resources."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def marked(marker: str) -> set[psutil.Process]:
    """Processes with this marker in their environment, which include descendants that polling has missed."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER) == marker:
                found.add(process)
    return found


def main(watched: int, marker: str) -> None:
    """Wait until the client `watched` ends; then kill its known descendants and the processes with its marker."""
    if os.fork():
        os._exit(0)  # as a child of the client, the guardian would count as a process of the engine
    os.setsid()
    seen: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        client = psutil.Process(watched)
        while not select.select([sys.stdin], [], [], POLL_SECONDS)[0] and not is_gone(client):
            seen = {process for process in seen if process.is_running()}
            with contextlib.suppress(psutil.NoSuchProcess):
                seen |= set(client.children(recursive=True))
    if select.select([sys.stdin], [], [], 0)[0] and os.read(0, len(DONE)) == DONE:
        return
    for pause in (0.0, POLL_SECONDS):  # psutil cannot read the environment of a process that was forked a moment ago
        time.sleep(pause)
        kill(seen | marked(marker))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
