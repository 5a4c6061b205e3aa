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
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory-mapped copies go into the test's folder, not into the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


@pytest.mark.usefixtures("datasets_cache")
def test_hub_fetches_one_split_and_keeps_it(tmp_path: Path, hub: FakeHub) -> None:
    """Only the files of the wanted split travel; without the hub the copy is used, and another split is refused."""
    first = ask(tmp_path / "home", hub.endpoint)
    assert first.stdout.split()[:3] == [f"{HUB_ID}@{COMMIT}", *LIBRI[:2]], first.stderr
    assert hub.fetched == {"clean/test/0000.parquet"}
    assert ask(tmp_path / "home", NOWHERE).stdout == first.stdout
    refused = ask(tmp_path / "home", NOWHERE, "dev-clean")
    assert "CorpusError" in refused.stderr
    assert "corpus=demo" in refused.stderr


def test_hub_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    """The message names the archive to fetch elsewhere, how to use it, and the corpus that needs no hub."""
    done = ask(tmp_path, NOWHERE)
    message = done.stderr.splitlines()[-1]
    for part in (
        "CorpusError",
        "openslr.org/resources/12/test-clean.tar.gz",
        "corpus=/path/to/LibriSpeech",
        "corpus=demo",
    ):
        assert part in message
