"""Fixtures of the tests that start real engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import SAMPLE, SAMPLE_SPLITS
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import Utterance, load_corpus
from whisperbench.engines.base import Engine
from whisperbench.engines.hardware import detect_hardware
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import start_engine


def pytest_report_header() -> str:
    """The tests on both corpora have less to compare without the sample."""
    found = "found" if SAMPLE.is_dir() else "missing, only the demo clips are transcribed"
    return f"LibriSpeech sample: {SAMPLE} ({found})"


@pytest.fixture(scope="session")
def demo() -> list[Utterance]:
    """The 8 demo clips."""
    return list(load_corpus("demo", "all", None).utterances)


@pytest.fixture(scope="session")
def utterances(demo: list[Utterance]) -> list[Utterance]:
    """The demo clips, and the 60 utterances of the LibriSpeech sample on a machine that has it."""
    splits = SAMPLE_SPLITS if SAMPLE.is_dir() else ()
    more = [u for split in splits for u in load_corpus(str(SAMPLE), split, None).utterances]
    return demo + [u for u in more if u.utt_id not in {each.utt_id for each in demo}]


@pytest.fixture(scope="module")
def started(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Engine]]:
    """Start an engine with these options; it is closed when the module's tests have ended."""
    engines: list[Engine] = []

    def start(**options: Any) -> Engine:
        config = BenchmarkConfig(**{"model": "demo", "corpus": "demo", "max_num_seqs": 16, **options})
        hardware = detect_hardware("")
        log = Path(tmp_path_factory.mktemp("engine")) / "engine.log"
        engines.append(start_engine(engine_settings(config, checkpoint, hardware), hardware, log))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def assert_nearly_all_equal(ours: Mapping[str, Any], theirs: Mapping[str, str]) -> None:
    """The texts of transformers are ours in at least 95 % of the utterances, or in all but one."""
    differing = [
        f"{utt_id}\n  transformers: {text}\n  vllm:         {ours[utt_id].hypothesis}"
        for utt_id, text in theirs.items()
        if text != ours[utt_id].hypothesis
    ]
    assert len(differing) <= max(1, int(0.05 * len(theirs))), "\n".join(differing)
