"""Modules that take seconds to import are imported where they are needed, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.commands import command, python_path
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import DEMO

CLIP = min(DEMO.glob("*.flac"))
HEAVY = (
    *("mlflow", "vllm", "torch", "transformers", "datasets", "librosa", "pydantic", "matplotlib", "optuna", "ray"),
    *("ctranslate2", "faster_whisper", "whisper"),
)
INSIDE_VLLM = ("vllm.model", "vllm.attention", "vllm.fp8_encoder", "vllm.fp8_kernels")
"""Modules with classes of vLLM and torch, which are imported only where vLLM already runs."""
_, _, MODULE, *WORDS = command("benchmark")
PROGRAMS = {
    "help": f"sys.argv[1:] = {[*WORDS, '--help']}; runpy.run_module({MODULE!r}, run_name='__main__')",
    "reading FLAC": f"from whisperbench.corpus import audio; audio.load_audio(Path({str(CLIP)!r}))",
    "the normaliser": "from whisperbench.measure.normalizer import normalizer_of; normalizer_of('en')('colour')",
    "all modules": (
        "import whisperbench\nfor found in pkgutil.walk_packages(whisperbench.__path__, 'whisperbench.'):\n"
        f"    if not found.name.endswith({(*INSIDE_VLLM, '__main__')}): importlib.import_module(found.name)"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_heavy_is_imported(program: str) -> None:
    """For a command's help text, the usual audio format, Whisper's normalisers, and on importing the library."""
    code = (
        "import atexit, importlib, pkgutil, runpy, sys; from pathlib import Path\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules]))\n{PROGRAMS[program]}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python_path(), check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout
    if program == "help":
        assert all(f"--{name.replace('_', '-')}" in done.stdout for name in BenchmarkConfig().as_params())
