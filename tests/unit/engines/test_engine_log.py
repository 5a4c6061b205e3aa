"""What the terminal shows of an engine's log while the engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisperbench.engines.engine_log import LINE_WIDTH, last_line

INFO = "(EngineCore pid=941) INFO 11-29 12:48:55 [model_runner.py:392] Loading model from scratch...\n"


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (INFO, "Loading model from scratch..."),
        (
            f"{INFO}(EngineCore pid=941) WARNING 11-29 12:48:56 [x.py:1] Triton has no CPU backend.\n\n",
            "Loading model from scratch...",
        ),
        (f"{INFO}Capturing:   0%|  | 0/22\rCapturing:  41%|##| 9/22 [00:01]", "Capturing:  41%|##| 9/22 [00:01]"),
        ("INFO 11-29 12:48:14 [vllm.py:1] " + "x" * 100, "x" * (LINE_WIDTH - 1) + "…"),
        ("", ""),
    ],
)
def test_last_line(tmp_path: Path, content: str, shown: str) -> None:
    """Without the prefix, cut to the width beside a spinner; warnings and old states of a bar are skipped."""
    log = tmp_path / "engine.log"
    log.write_text(content, encoding="utf-8")
    assert last_line(log) == shown


def test_last_line_without_a_log(tmp_path: Path) -> None:
    """An engine that has not written yet has no last line."""
    assert last_line(tmp_path / "engine.log") == ""
