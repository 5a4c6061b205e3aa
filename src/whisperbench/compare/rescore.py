"""Score stored transcripts again with the installed normaliser; the tracking server is not changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.rank import Leaderboard
from whisperbench.measure.score import score
from whisperbench.results.keys import with_normalizer
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.results.record import RunRecord
from whisperbench.results.run_data import accuracy_metrics
from whisperbench.results.transcripts import StoredTranscripts


@dataclasses.dataclass(frozen=True, slots=True)
class RankChange:
    """Rank and WER of a system before and after rescoring; None = no rank or no WER."""

    label: str
    gpu: str
    rank: tuple[int | None, int | None]
    wer: tuple[float | None, float | None]


def rescore(run: RunRecord, stored: StoredTranscripts | None, seed: int) -> tuple[RunRecord, StoredTranscripts] | None:
    """The run with its new metrics and accuracy key, and its transcripts with their new counts.

    None without a WER or transcripts, or if an utterance has no reference.

    Raises:
        CorpusError: a text cannot be normalised; the message names the utterance.
    """
    if not stored or run.metric("wer") is None or any(utterance.reference is None for utterance in stored):
        return None
    found = score(stored, run.params.get("language", "en"), seed)
    kept = {n: v for n, v in run.metrics.items() if n not in ("wer", "cer", "wer_ci_low", "wer_ci_high")}
    tags = {**run.tags, ACCURACY_KEY: with_normalizer(run.accuracy_key or "", found.normalizer.name)}
    return dataclasses.replace(run, metrics={**kept, **accuracy_metrics(found)}, tags=tags), found.results


def rank_changes(before: Sequence[Leaderboard], after: Sequence[Leaderboard]) -> tuple[RankChange, ...]:
    """Changes of rank, in the new order."""
    old = {row.system.newest.run_id: (row.rank, row.system.wer) for board in before for row in board.rows}
    changes = []
    for row in (row for board in after for row in board.rows):
        rank, wer = old.get(row.system.newest.run_id, (None, None))
        if rank != row.rank:
            changes.append(RankChange(row.system.label, row.system.gpu, (rank, row.rank), (wer, row.system.wer)))
    return tuple(changes)
