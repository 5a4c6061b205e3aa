"""What load_audio and windows promise: exact samples, and an error with a way out instead of half an utterance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.corpus.test_audio import CLIP


def test_reading_flac_imports_neither_librosa_nor_torch() -> None:
    """The fast path is soundfile alone: librosa takes a second to import."""
    code = (
        "import sys; from pathlib import Path; from whisperbench.corpus.audio import load_audio\n"
        f"load_audio(Path({str(CLIP)!r}))\n"
        f"print({{'librosa', 'torch', 'av', 'soxr'}} & set(sys.modules))"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout.strip() == "set()"
