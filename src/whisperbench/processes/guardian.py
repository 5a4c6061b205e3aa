"""Kills the descendants of a process that was killed itself.

An engine that is still starting does not notice the end of its client and would keep the GPU.

    python guardian.py <process id> <marker>

is the guardian process.  It ends without killing anything when it reads `done` from its standard input.
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
"""Variable in the environment of descendants: `<process id>-<start time>` of the client."""
POLL_SECONDS = 0.5
DONE = b"done"


@contextlib.contextmanager
def kill_children_on_exit() -> Iterator[None]:
    """When this process dies inside the block, its descendants are killed within a second.  When the block raises, the
    processes that it has started are killed."""
    before, outer = descendants(), os.environ.pop(MARKER, None)
    marker = f"{os.getpid()}-{psutil.Process().create_time()}"
    command = [sys.executable, "-P", __file__, str(os.getpid()), marker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as guardian:  # noqa: S603 - this file
        os.environ[MARKER] = marker
        try:
            guardian.wait()  # it continues in another process, see main
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
    """Send SIGKILL to each process and its descendants, except Python's resource tracker, which ends by itself after
    them and removes their shared memory."""
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
    """The processes whose environment has the marker, including those that were never seen as children."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER) == marker:
                found.add(process)
    return found


def main(watched: int, marker: str) -> None:
    """Wait for the end of a process; then kill its descendants that were seen, and processes with its marker."""
    if os.fork():
        os._exit(0)  # the guardian must not be a child of the client, which looks for the engine's processes there
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
    for pause in (0.0, POLL_SECONDS):  # a process that has just been forked has no environment yet
        time.sleep(pause)
        kill(seen | marked(marker))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
