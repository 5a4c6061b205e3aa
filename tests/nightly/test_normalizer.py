"""The English normaliser against openai-whisper's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.measure.test_normalizer import random_texts
from whisperbench.measure.normalizer import normalizer_of

openai = pytest.importorskip("whisper.normalizers", reason="openai-whisper is not installed (EXTRAS=other-engines)")


def test_random_texts() -> None:
    """100,000 texts are normalised alike."""
    normalize, expected = normalizer_of("en"), openai.EnglishTextNormalizer()
    assert [text for text in random_texts(100_000) if normalize(text) != " ".join(expected(text).split())] == []


def test_references_of_librispeech(librispeech_sample: Path) -> None:
    """All references of the sample, and of test-clean where its manifest stands beside it."""
    manifests = [librispeech_sample / "manifest.jsonl", librispeech_sample.parent / "manifests" / "test-clean.jsonl"]
    lines = [line for file in manifests if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) >= 60
    normalize, expected = normalizer_of("en"), openai.EnglishTextNormalizer()
    assert [text for text in texts if normalize(text) != " ".join(expected(text).split())] == []
