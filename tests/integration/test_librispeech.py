"""LibriSpeech as the hub has it: parquet files with the texts, fetched one split at a time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.corpora import LIBRI, parquet
from tests.support.hub import COMMIT, NOWHERE, FakeHub, run_with_hub
from whisperbench.corpus.librispeech import HUB_ID


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that holds two splits of LibriSpeech."""
    for split in ("test-clean", "dev-clean"):
        parquet(tmp_path / "files", split)
    with FakeHub("datasets", HUB_ID, tmp_path / "files") as server:
        yield server


def ask(home: Path, endpoint: str, split: str = "test-clean") -> subprocess.CompletedProcess[str]:
    """Load `librispeech` in a process whose hub is `endpoint` and whose caches are under `home`."""
    code = "from whisperbench.corpus.corpus import load_corpus\n"
    code += "from whisperbench.corpus.inspection import inspect_corpus\n"
    code += f"c = load_corpus('librispeech', {split!r}, 2)\n"
    code += "print(c.source, *(u.utt_id for u in c.utterances), inspect_corpus(c, 1).digest)"
    return run_with_hub(endpoint, home, code)


def test_hub_fetches_one_split_and_keeps_it(tmp_path: Path, hub: FakeHub) -> None:
    """Only one split is downloaded; without the hub it is read from the cache, and another one is refused."""
    first = ask(tmp_path / "home", hub.endpoint)
    assert first.stdout.split()[:3] == [f"{HUB_ID}@{COMMIT}", *LIBRI[:2]], first.stderr
    assert hub.fetched == {"clean/test/0000.parquet"}
    assert ask(tmp_path / "home", NOWHERE).stdout == first.stdout
    message = ask(tmp_path / "home", NOWHERE, "dev-clean").stderr.splitlines()[-1]
    parts = ("openslr.org/resources/12/dev-clean.tar.gz", "corpus=/path/to/LibriSpeech", "corpus=demo")
    for part in ("CorpusError", *parts):
        assert part in message
