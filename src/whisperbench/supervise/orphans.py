"""A process that is killed takes with it what it had started: an engine that is only half up does not notice that it
is alone, and would hold the GPU for ever.

    python orphans.py <process id>      the guardian: stops when its standard input says so, or ends

The guardian runs from this file alone and imports nothing of the project, so that it is there at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

LOOK_SECONDS = 0.5
DONE = b"done"


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Inside the block, the death of this process is the death of its descendants, within a second; and when the block
    raises, what it has started ends too."""
    before = descendants()
    command = [sys.executable, "-P", __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as guardian:  # noqa: S603 - this file
        guardian.wait()  # it goes on in a process of its own: see main
        try:
            yield
        except BaseException:
            kill(descendants() - before)
            raise
        finally:
            guardian.communicate(DONE)


def descendants() -> set[psutil.Process]:
    """What this process has started, and what was started by that."""
    import psutil

    return set(psutil.Process().children(recursive=True))


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each and to its descendants; one that has ended meanwhile is no error."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    each.kill()


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, or only its zombie is left, which holds nothing."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def main(watched: int) -> None:
    """Wait for the end of the process of that id, and end what was seen below it."""
    if os.fork():
        os._exit(0)  # no child of the watched process any more, which looks for the engine's among its children
    os.setsid()
    import psutil

    client = psutil.Process(watched)
    seen: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen = {process for process in seen if process.is_running()} | set(client.children(recursive=True))
        if is_gone(client):
            break
    else:
        if os.read(0, len(DONE)) == DONE:
            return
    kill(seen)


if __name__ == "__main__":
    main(int(sys.argv[1]))
