"""What a process that is killed cannot clear away: a directory that says whose it is, for those that come later.

    <temporary directory>/whisperbench-<process id>-<start>/
        owner       which process made it
        segments    names in /dev/shm that its descendants had mapped
        …           sockets, and what else the process puts there

A segment of shared memory names no owner, and one that nobody has mapped may still be wanted: so only what is
written down here is removed, after the death of its owner, and only while no process has it mapped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from whisperbench.supervise.owner import Process

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's, not a place for files of ours
MAPPED = re.compile(rf"{SHARED_MEMORY}/(psm_[0-9a-f]+)$", re.MULTILINE)  # as Python names its segments
PREFIX = "whisperbench-"
OWNER, SEGMENTS = "owner", "segments"


def own_directory() -> Path | None:
    """This process's directory, made where it is not there; None where the system does not tell who this process is,
    or does not let it have one."""
    process = Process.this()
    if process is None:
        return None
    directory = Path(tempfile.gettempdir()) / f"{PREFIX}{process.pid}-{process.started}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.is_symlink() or directory.stat().st_uid != os.getuid():
            return None
        (directory / OWNER).write_text(str(process), encoding="utf-8")
    except OSError:
        return None
    return directory


def remove_own() -> None:
    """This process's directory, at its end; it stays where segments do, for those that come later."""
    process = Process.this()
    if process is not None:
        directory = Path(tempfile.gettempdir()) / f"{PREFIX}{process.pid}-{process.started}"
        if not are_left(_segments_of(directory)):
            shutil.rmtree(directory, ignore_errors=True)


def remove_those_of_the_dead() -> None:
    """The directories of this user's processes of this host that are dead, and the segments that they name."""
    here = Process.this()
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*") if here else ():
        with contextlib.suppress(OSError):
            owner = Process.parse((directory / OWNER).read_text(encoding="utf-8"))
            if directory.stat().st_uid != os.getuid() or owner is None or here is None or not owner.is_dead(here):
                continue
            left = {name for name in _segments_of(directory) if (SHARED_MEMORY / name).exists()}
            for name in left - mapped_by(_all_processes()) if left else ():
                (SHARED_MEMORY / name).unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)


def are_left(segments: Iterable[str]) -> bool:
    """Whether one of these segments exists."""
    return any((SHARED_MEMORY / name).exists() for name in segments)


def mapped_by(pids: Iterable[int]) -> set[str]:
    """The segments that these processes have mapped, as far as this user may look."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found |= set(MAPPED.findall(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")))
    return found


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _segments_of(directory: Path) -> list[str]:
    """What it names, and nothing else than a segment's name: a file may have been tampered with."""
    with contextlib.suppress(OSError):
        lines = (directory / SEGMENTS).read_text(encoding="utf-8").splitlines()
        return [name for name in lines if re.fullmatch(r"psm_[0-9a-f]+", name)]
    return []
