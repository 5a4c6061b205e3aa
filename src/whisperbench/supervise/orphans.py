"""A process that is killed takes with it what it had started: an engine that is only half up does not notice that it
is alone, and would hold the GPU for ever.

    python -m whisperbench.supervise.orphans <process id> [<its directory>]

is the guardian: it stops when its standard input says so, or ends.  It imports little, so that it is there at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.supervise.leftovers import (
    SEGMENTS,
    are_left,
    mapped_by,
    own_directory,
    remove_own,
    remove_those_of_the_dead,
)

if TYPE_CHECKING:
    import psutil

LOOK_SECONDS = 0.5
TRACKER_SECONDS = 5.0
"""What Python's own tracker of shared memory gets to remove what the killed had."""
DONE = b"done"
SOURCES = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Inside the block, the death of this process is the death of its descendants, within a second; and when the block
    raises, what it has started ends too.  What dead processes have left behind is removed before and after."""
    remove_those_of_the_dead()
    before, directory = descendants(), own_directory()
    command = [sys.executable, "-P", "-m", __name__, str(os.getpid()), *([str(directory)] if directory else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(  # noqa: S603 - this file
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    ) as guardian:
        guardian.wait()  # it goes on in a process of its own: see main
        try:
            yield
        except BaseException:
            kill(descendants() - before)
            raise
        finally:
            guardian.communicate(DONE)
            remove_own()


def descendants() -> set[psutil.Process]:
    """What this process has started, and what was started by that."""
    import psutil

    return set(psutil.Process().children(recursive=True))


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each and to its descendants; one that has ended meanwhile is no error.

    Python's tracker is spared: it ends by itself after them, and removes the shared memory that they leave.
    """
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    if not is_tracker(each):
                        each.kill()


def is_tracker(process: psutil.Process) -> bool:
    """Whether a process is the resource tracker of Python's multiprocessing."""
    return any("resource_tracker" in word for word in process.cmdline())


def end(seen: set[psutil.Process], directory: Path | None) -> None:
    """Kill these, and those that say that they belong to the directory, and remove what they leave."""
    import psutil

    for pause in (0.0, LOOK_SECONDS):  # one that was being started had no environment yet
        time.sleep(pause)
        found = seen | (started_with(directory) if directory else set())
        kill(found)
        psutil.wait_procs(found, TRACKER_SECONDS)
    remove_those_of_the_dead()


def started_with(directory: Path) -> set[psutil.Process]:
    """Processes whose temporary files go to a directory: also one that was started the moment before the end, and is
    nobody's child since, before anybody had seen it."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == str(directory):
                found.add(process)
    return found


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, or only its zombie is left, which holds nothing."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def main(watched: int, directory: Path | None) -> None:
    """Wait for the end of the process of that id, and end what was seen below it; its shared memory is noted until then
    in its directory, and removed."""
    if os.fork():
        os._exit(0)  # no child of the watched process any more, which looks for the engine's among its children
    os.setsid()
    import psutil

    try:
        client = psutil.Process(watched)
    except psutil.NoSuchProcess:  # gone already
        end(set(), directory)
        return
    seen: set[psutil.Process] = set()
    noted: set[str] = set()
    notes = (directory / SEGMENTS).open("a", encoding="utf-8") if directory else None
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen = {process for process in seen if process.is_running()} | set(client.children(recursive=True))
        if notes and (new := mapped_by(process.pid for process in seen) - noted):
            noted |= new
            notes.writelines(f"{name}\n" for name in new)
            notes.flush()
        if is_gone(client):
            break
    else:
        if os.read(0, len(DONE)) == DONE:
            if are_left(noted):  # the tracker removes them when the process itself has ended
                os.dup2(
                    os.open(os.devnull, os.O_WRONLY), 2
                )  # whoever reads the process's output waits for its end only
                while not is_gone(client):
                    time.sleep(LOOK_SECONDS)
                psutil.wait_procs(seen, TRACKER_SECONDS)
                remove_those_of_the_dead()
            return
    end(seen, directory)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
