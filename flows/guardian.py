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
from collections.abc import Iterator

LOOK_SECONDS = 0.5
DONE = b"done"


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Inside the block, the death of this process is the death of its descendants, within a second."""
    with subprocess.Popen([sys.executable, __file__, str(os.getpid())], stdin=subprocess.PIPE) as guardian:  # noqa: S603
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):
                guardian.communicate(DONE)


def main(watched: int) -> None:
    import psutil

    if os.fork():
        os._exit(0)  # not a child of the watched process any more: it does not wait for it, nor count it among its own
    os.setsid()
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
