"""What the processes of a test leave behind: others of their kind may be at work on this machine at the same time.

What belongs to a test is told by its temporary directory, which it has for itself and which all its processes inherit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from whisperbench.doctor import SHARED_MEMORY, unmapped_segments

MIN_BYTES = 65_536
"""vLLM's have megabytes; smaller ones are made by tests of other sessions, to be looked at, and name no owner."""
PATIENCE_SECONDS = 20.0
"""A guardian ends after the process that it watches; on a busy machine seconds later."""


def segments() -> set[str]:
    """Python's segments of shared memory of an engine's size, whoever made them."""
    found = set()
    for path in SHARED_MEMORY.glob("psm_*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if path.stat().st_size >= MIN_BYTES:
                found.add(path.name)
    return found


def unused_segments(before: set[str]) -> set[str]:
    """Those that are new and that no living process has mapped, also a moment later: another test's may be on their way
    to a process, or out."""
    if unused := _unmapped(before):
        time.sleep(0.5)
        unused &= _unmapped(before)
    return unused


def _unmapped(before: set[str]) -> set[str]:
    return (segments() & {path.name for path in unmapped_segments()}) - before


def files_in(directory: Path) -> list[str]:
    """Whatever lies there, except empty directories and what a killed vLLM engine leaves: sockets, and the file where
    its workers meet (docs/reliability.md)."""
    paths = [path for path in sorted(directory.rglob("*")) if not path.is_dir() and not path.is_socket()]
    return [str(path.relative_to(directory)) for path in paths if not path.name.startswith("vllm_dist_")]


def processes_in(directory: Path) -> list[str]:
    """Those whose temporary directory it is, or lies in it, as `process id command`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            theirs = Path(process.environ().get("TMPDIR", ""))
            if theirs.is_relative_to(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[-80:]}")
    return found


def left_after_a_while(directory: Path, segments_before: set[str]) -> list[str]:
    """What is still there when everything has had time to end."""

    def everything() -> list[str]:
        return [*processes_in(directory), *files_in(directory), *sorted(unused_segments(segments_before))]

    return wait_for_none(everything, PATIENCE_SECONDS)


def wait_for_none(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What `look` finds, at the latest after so many seconds, as soon as it finds nothing."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def called(name: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those whose own names contain this; one that ends meanwhile is none of them."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if name in process.name():
                found.append(process)
    return found
