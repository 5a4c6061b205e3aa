"""Identity of the process that owns a run, so that a later process can determine whether the owner has ended.

Only processes of the same host and the same container are reported as ended, because only their end can be verified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
from pathlib import Path
from typing import Self

INITIAL_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO: the host's own PID namespace, not a container's


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one host; `started`, in clock ticks since `boot`, distinguishes processes with the same id."""

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Self | None:
        """This process; None if the system does not provide the information, so other processes leave its runs open."""
        host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())
        boot, machine = _read("/proc/sys/kernel/random/boot_id"), _read("/etc/machine-id") or "none"
        started, namespace = _started(os.getpid()), Path("/proc/self/ns/pid")
        if not boot or started is None or not namespace.is_symlink():
            return None
        return cls(host, machine, boot, str(namespace.readlink()), os.getpid(), started)

    def __str__(self) -> str:
        return "|".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Inverse of `str`; None for a text with another format."""
        fields = dict(part.partition("=")[::2] for part in text.split("|"))
        try:
            pid, started = int(fields.pop("pid")), int(fields.pop("started"))
            return cls(**fields, pid=pid, started=started)
        except (KeyError, TypeError, ValueError):
            return None

    def is_dead(self, here: ProcessId) -> bool:
        """Whether this process has certainly ended, as seen from the process `here`."""
        if (self.host, self.machine) != (here.host, here.machine):
            return False
        if self.boot != here.boot:
            # Containers often share host names and machine ids, so across a reboot these identify only a host itself.
            return self.namespace == here.namespace == INITIAL_NAMESPACE and self.machine != "none"
        return self.namespace == here.namespace and _started(self.pid) != self.started


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks; None if it has ended or is a zombie."""
    # The name of the process, which may contain spaces and brackets, comes before the last bracket.
    state, *fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split() or ["X"]
    return None if state in ("Z", "X") else int(fields[18])


def _read(path: str) -> str:
    """The text of a file; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return ""
