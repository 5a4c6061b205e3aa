"""LibriSpeech as the hub has it: parquet files with the texts, fetched one split at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import LIBRI, load, openslr, parquet
from whisperbench.corpus.corpus import DEMO, load_corpus
from whisperbench.corpus.inspection import inspect_corpus
from whisperbench.errors import CorpusError, WhisperbenchError

CONTENT = (DEMO / "8455-210777-0068.flac").read_bytes()


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory-mapped copies go into the test's folder, not into the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("datasets_cache")
def test_hub_schema_is_the_same_corpus_as_openslr(tmp_path: Path) -> None:
    """A local copy of the hub's parquet files and the OpenSLR tree have one order and one digest."""
    from_hub = load(parquet(tmp_path / "hub", "test-other"), "test-other")
    from_tree = load(openslr(tmp_path / "tree"))
    assert [(u.utt_id, u.reference, u.speaker) for u in from_hub.utterances] == [
        (u.utt_id, u.reference, u.speaker) for u in from_tree.utterances
    ]
    found = [inspect_corpus(from_hub, workers=2), inspect_corpus(from_tree, workers=1)]
    lengths = [[each.seconds for each in corpus.utterances] for corpus in found]
    assert (found[0].digest, lengths[0]) == (found[1].digest, lengths[1])


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", None, "the column id is missing, expected text"),
        ("id", [1, 2], "the column id is int64, expected "),
        ("id", ["a", None], "row 1: the id '' is not allowed"),
        ("text", [b"a", b"b"], "the column text is binary, expected "),
        ("speaker_id", [0.5, 1.0], "the column speaker_id is double, expected "),
        ("audio", [[0.1], [0.2]], "the column audio is list<item: double>, expected "),
        ("audio", [{"array": [0.1], "sampling_rate": 16_000}] * 2, "the column audio is struct<array"),
        ("audio", [{"bytes": CONTENT, "path": "x"}, None], "column audio in row 1 of .* is an empty file"),
        (
            "audio",
            [{"bytes": CONTENT, "path": "x"}, {"bytes": None, "path": "x"}],
            "column audio in row 1 of .* is an empty file",
        ),
    ],
)
def test_parquet_of_another_schema(tmp_path: Path, column: str, values: list[object] | None, message: str) -> None:
    """The message names the column, and the row if only some rows are wrong."""
    import pyarrow
    import pyarrow.parquet

    audio = [{"bytes": CONTENT, "path": "x"}] * 2
    columns: dict[str, object] = {"id": ["a", "b"], "text": ["X", "Y"], "speaker_id": [1, 2], "audio": audio}
    columns |= {column: values}
    (tmp_path / "clean" / "test").mkdir(parents=True)
    table = pyarrow.table({name: each for name, each in columns.items() if each is not None})
    pyarrow.parquet.write_table(table, tmp_path / "clean" / "test" / "0.parquet")
    with pytest.raises(WhisperbenchError, match=message):
        inspect_corpus(load(tmp_path), workers=1)


@pytest.mark.usefixtures("datasets_cache")
def test_parquet_that_is_not_parquet(tmp_path: Path) -> None:
    """A file that was cut short while it was copied."""
    (tmp_path / "clean" / "test").mkdir(parents=True)
    (tmp_path / "clean" / "test" / "0000.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CorpusError, match="has no readable parquet data set"):
        load(tmp_path)


def test_a_part_that_librispeech_does_not_have() -> None:
    """A wrong split is known before the hub is asked."""
    with pytest.raises(CorpusError, match=r"'test' is not a split of LibriSpeech\. Use one of test-clean"):
        load_corpus("librispeech", "test", None)


@pytest.mark.usefixtures("datasets_cache")
def test_dev_is_two_splits_together(tmp_path: Path) -> None:
    """dev-clean and dev-other in one order; where one of them is not there, it is named."""
    from_hub = parquet(tmp_path / "hub", "dev-clean")
    with pytest.raises(CorpusError, match=r"split='dev-other' is not in .*; it holds dev-clean"):
        load(from_hub, "dev")
    tree = openslr(tmp_path / "tree", "dev-clean") / "LibriSpeech"
    (tree / "dev-other").mkdir()
    (tree / "dev-clean" / LIBRI[2].partition("-")[0]).rename(tree / "dev-other" / LIBRI[2].partition("-")[0])
    together = load(tree, "dev")
    assert [utterance.utt_id for utterance in together.utterances] == list(LIBRI)
    assert together.split == "dev"
