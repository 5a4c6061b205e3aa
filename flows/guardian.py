"""Outlives a command that is killed, and ends what the command had started: an engine that is only half up does not
notice that it is alone, and would hold the GPU for ever.

    python flows/guardian.py <process id>      stops when its standard input says so, or ends
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
    command = [sys.executable, __file__, str(os.getpid())]
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
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def main(watched: int) -> None:
    if os.fork():
        os._exit(0)  # no child of the watched process any more, which looks for the engine's among its children
    os.setsid()
    import psutil

    client = psutil.Process(watched)
    seen: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen = {process for process in seen if process.is_running()} | set(client.children(recursive=True))
        if not client.is_running() or client.status() == psutil.STATUS_ZOMBIE:
            break
    else:
        if os.read(0, len(DONE)) == DONE:
            return
    for process in seen:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*process.children(recursive=True), process]:
                each.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]))
