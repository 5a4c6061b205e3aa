"""Identity of the process that owns a run, from which another process can later determine whether it is dead.

A process counts as dead only if that is certain, which excludes other hosts and other containers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
from pathlib import Path
from typing import Self

INITIAL_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, outside containers with process ids of their own


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one host; `started`, in clock ticks since `boot`, distinguishes processes with a reused id."""

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Self | None:
        """This process; None if the system lacks this information, so that its runs are never closed by others."""
        boot, machine = _read("/proc/sys/kernel/random/boot_id"), _read("/etc/machine-id")
        started = _started(os.getpid())
        if boot is None or started is None:
            return None
        with contextlib.suppress(OSError):
            namespace = str(Path("/proc/self/ns/pid").readlink())
            host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())
            return cls(host, machine or "none", boot, namespace, os.getpid(), started)
        return None

    def __str__(self) -> str:
        return "|".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of `str`; None for anything else."""
        fields = dict(part.partition("=")[::2] for part in text.split("|"))
        try:
            pid, started = int(fields.pop("pid")), int(fields.pop("started"))
            return cls(**fields, pid=pid, started=started)
        except (KeyError, TypeError, ValueError):
            return None

    def is_dead(self, here: ProcessId) -> bool:
        """Whether a process of the host of `here` has certainly ended."""
        if (self.host, self.machine) != (here.host, here.machine):
            return False
        if self.boot != here.boot:
            # Containers often share names and machine ids, so after a reboot these identify only a host itself.
            return self.namespace == here.namespace == INITIAL_NAMESPACE and self.machine != "none"
        return self.namespace == here.namespace and _started(self.pid) != self.started


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks; None if it has ended or is a zombie."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before it may contain spaces and brackets
    return None if state in ("Z", "X") else int(fields[18])


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
