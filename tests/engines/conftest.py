"""What the tests of real engines transcribe, and with which weights."""

from __future__ import annotations

import pytest

from tests.support.corpora import SAMPLE, SAMPLE_SPLITS
from whisperbench.inputs.checkpoint import Checkpoint, resolve_model
from whisperbench.inputs.corpus import Utterance, load_corpus


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    """The 60 utterances of the sample; the 8 demo clips where there is no sample."""
    if not SAMPLE.exists():
        return list(load_corpus("demo", "all", 0).utterances)
    return [u for split in SAMPLE_SPLITS for u in load_corpus(str(SAMPLE), split, 0).utterances]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_model("demo", "main", cache_dir=tmp_path_factory.mktemp("cache"), random_weights=False)
