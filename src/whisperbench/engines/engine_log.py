"""Engine log: redirect the output of the engine's processes, and find its last line and the cause of a failure."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.files import tail

if TYPE_CHECKING:
    from whisperbench.engines.settings import EngineSettings

KILLED = "one of its processes ended without an error message (out of memory? see `dmesg`)"

DIED = re.compile(r"Worker proc (?P<name>\S+) died unexpectedly(?: \(exit code: (?P<code>-?\d+)\))?")
EXCEPTION = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt): .+")
NO_CAUSE = re.compile(r"root cause|RuntimeError: cancelled")

NO_MEMORY = (
    r"(?i)out of memory|OutOfMemory|MemoryError|can't allocate memory|bad_alloc|too much memory"
    r"|No available memory for the cache blocks|less than desired GPU memory"
)
REMEDIES = {
    NO_MEMORY: "Not enough memory: lower max_num_seqs={s.config.max_num_seqs} or "
    "max_num_batched_tokens={s.max_num_batched_tokens}, or change gpu_memory_utilization={s.gpu_memory_utilization} "
    "(higher if the engine needs more, lower if another process uses the GPU).",
    r"FP8|fp8": "This GPU or dtype={s.dtype} does not support an fp8 KV cache. Use kv_cache_dtype=auto.",
}
"""Patterns of causes, and the advice for each."""

LINE_WIDTH = 60  # characters of the log's last line that fit beside a spinner
MAX_CAUSE = 400  # characters: some causes contain a whole configuration
PREFIX = re.compile(r"^(?:\(\S+ pid=\d+\) )?(?:[A-Z]+ \d\d-\d\d [\d:.]+ )?(?:\[[^\]]*\] ?)*")
"""Prefix of vLLM's log messages: process, level, time and source location."""
IS_WARNING = re.compile(r"(?:\(\S+ pid=\d+\) )?WARNING ")


def last_line(log: Path) -> str:
    """The last line of a log without its prefix, or the newest state of a progress bar; empty without a log.

    Warnings are skipped, because most of vLLM's do not concern the start.
    """
    lines = [line for line in re.split(r"[\r\n]+", tail(log)) if not IS_WARNING.match(line)]
    last = next((found for line in reversed(lines) if (found := PREFIX.sub("", line).strip())), "")
    return last if len(last) <= LINE_WIDTH else last[: LINE_WIDTH - 1] + "…"


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to `log`; the engine's processes inherit them and keep writing there."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def cause_in(log: Path, since: int = 0) -> str | None:
    """Return how a worker was killed, or the last exception, from the log after its first `since` bytes.

    Exceptions that only refer to another exception, or report a cancelled wait for a worker, are skipped.
    """
    written = log.read_bytes()[since:].decode("utf-8", errors="replace")
    causes = [line.strip() for line in EXCEPTION.findall(written) if not NO_CAUSE.search(line)]
    died = DIED.search(written)
    if died and (not causes or (died["code"] or "").startswith("-")):
        code = f" (exit code {died['code']})" if died["code"] else ""
        return f"its worker {died['name']} was killed{code}. It may have run out of memory; `dmesg` shows it"
    return causes[-1][:MAX_CAUSE] if causes else None


def why_it_did_not_start(error: Exception, log: Path, settings: EngineSettings) -> str:
    """Message for a failed start: its cause, the option to change if one helps, and the path of the log."""
    refers_to_log = "root cause" in str(error)  # if the process was killed, the log has no cause
    cause = cause_in(log) or (KILLED if refers_to_log else f"{type(error).__name__}: {error}")
    advice = next((way for pattern, way in REMEDIES.items() if re.search(pattern, f"{cause}\n{error}")), "")
    return f"The engine did not start: {cause}. {advice.format(s=settings)} Engine log: {log}".replace("  ", " ")
