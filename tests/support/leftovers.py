"""What the processes of a test leave behind; other processes of the same kind may run on this machine.

The processes of a test are recognised by its temporary directory: it is the test's own, and they inherit it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from whisperbench.doctor import SHARED_MEMORY, unmapped_segments

MIN_BYTES = 65_536
"""vLLM's segments have megabytes; smaller ones are made by unit tests, and do not show whose they are."""
WAIT_SECONDS = 20.0
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
    """New segments that no living process has mapped."""
    return (segments() & {path.name for path in unmapped_segments()}) - before


def files_in(directory: Path) -> list[str]:
    """The files there, without sockets and the file where vLLM's workers meet, which a killed engine leaves
    (docs/reliability.md)."""
    paths = [path for path in sorted(directory.rglob("*")) if not path.is_dir() and not path.is_socket()]
    return [str(path.relative_to(directory)) for path in paths if not path.name.startswith("vllm_dist_")]


def processes_in(directory: Path) -> list[str]:
    """The processes whose temporary directory it is, or lies in it, as `process id command`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            theirs = Path(process.environ().get("TMPDIR", ""))
            if theirs.is_relative_to(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[-80:]}")
    return found


def left_after_a_while(directory: Path, segments_before: set[str]) -> list[str]:
    """The processes, files and segments that are left when everything has had time to end."""

    def everything() -> list[str]:
        return [*processes_in(directory), *files_in(directory), *sorted(unused_segments(segments_before))]

    return wait_for_none(everything, WAIT_SECONDS)


def wait_for_none(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What `look` finds, as soon as it finds nothing, and after so many seconds at the latest."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
