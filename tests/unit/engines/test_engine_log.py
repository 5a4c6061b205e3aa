"""What is read from an engine's log: its last line while it starts, and the cause of a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engines.test_settings_and_start import H100, settings
from whisperbench.engines.engine_log import LINE_WIDTH, cause_in, last_line, why_it_did_not_start

INFO = "(EngineCore pid=941) INFO 11-29 12:48:55 [model_runner.py:392] Loading model from scratch...\n"
WARNING = "(EngineCore pid=941) WARNING 11-29 12:48:56 [x.py:1] Triton has no CPU backend.\n\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (f"{INFO}{WARNING}", "Loading model from scratch..."),
        (f"{INFO}Capturing:   0%|  | 0/22\rCapturing:  41%|##| 9/22 [00:01]", "Capturing:  41%|##| 9/22 [00:01]"),
        ("INFO 11-29 12:48:14 [vllm.py:1] " + "x" * 100, "x" * (LINE_WIDTH - 1) + "…"),
        ("", ""),
        (None, ""),
    ],
)
def test_last_line(log: Path, content: str | None, shown: str) -> None:
    """Without the prefix, cut to the width beside a spinner; warnings and old states of a bar are skipped."""
    if content is not None:
        log.write_text(content, encoding="utf-8")
    assert last_line(log) == shown


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB", "lower max_num_seqs=128"),
        ("ValueError: No available memory for the cache blocks.", "gpu_memory_utilization=0.92"),
        ("RuntimeError: For FP8 input, output must have dtype BF16", "Use kv_cache_dtype=auto"),
    ],
)
def test_a_failed_start_names_the_cause_and_the_option(log: Path, line: str, advice: str) -> None:
    """The cause is in the log of the engine process; vLLM's exception only refers to it."""
    log.write_text(f"(EngineCore pid=1) ERROR core.py: {line}\nRuntimeError: init failed. See root cause above.\n")
    message = why_it_did_not_start(RuntimeError("Engine core initialization failed"), log, settings(H100))
    assert line in message
    assert advice in message
    assert str(log) in message


def test_a_start_that_was_killed(log: Path) -> None:
    """After a SIGKILL the log has no cause, only references to one."""
    log.write_text("Exception: WorkerProc initialization failed. See stack trace for root cause.\n")
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    message = why_it_did_not_start(error, log, settings(H100))
    assert "ended without an error message" in message
    assert "lower max_num_seqs=128 or max_num_batched_tokens" in message


@pytest.mark.parametrize(("code", "shown"), [(" (exit code: -9)", " (exit code -9)"), ("", "")])
def test_a_worker_that_was_killed(log: Path, code: str, shown: str) -> None:
    """The cause is that the worker was killed, not that the wait for it was cancelled."""
    log.write_text(f"Worker proc VllmWorker-1 died unexpectedly{code}, shutting down.\nRuntimeError: cancelled\n")
    assert (cause_in(log) or "").startswith(f"its worker VllmWorker-1 was killed{shown}.")


def test_a_cause_is_looked_up_after_the_start_only(log: Path) -> None:
    """Errors in the log from before the end of the start are not the cause of a later failure."""
    log.write_text("ImportError: no module named optional\n")
    start = log.stat().st_size
    assert cause_in(log, start) is None
    with log.open("a") as file:
        file.write("torch.AcceleratorError: CUDA error: an illegal memory access\n")
    assert cause_in(log, start) == "torch.AcceleratorError: CUDA error: an illegal memory access"
