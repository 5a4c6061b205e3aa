"""Score stored transcripts again with the installed normaliser; the tracking server is not changed."""

from __future__ import annotations

import dataclasses
import re
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
    """Place in the leaderboard and WER of a system before and after rescoring; None = no place or no WER."""

    label: str
    gpu: str
    rank: tuple[int | None, int | None]
    wer: tuple[float | None, float | None]


def rescore(run: RunRecord, stored: StoredTranscripts | None) -> tuple[RunRecord, StoredTranscripts] | None:
    """The run with its new metrics and accuracy key, and its transcripts with their new counts.

    None without a WER or transcripts, or if an utterance has no reference.

    Raises:
        CorpusError: a text cannot be normalised; the message names the utterance.
    """
    if not stored or run.wer is None or any(utterance.reference is None for utterance in stored):
        return None
    found = score(stored, run.params.get("language", "en"))
    kept = {n: v for n, v in run.metrics.items() if not re.fullmatch("[wc]er(_ci_low|_ci_high)?", n)}
    tags = {**run.tags, ACCURACY_KEY: with_normalizer(run.accuracy_key or "", found.normalizer.name)}
    return dataclasses.replace(run, metrics={**kept, **accuracy_metrics(found)}, tags=tags), found.results


def rank_changes(before: Sequence[Leaderboard], after: Sequence[Leaderboard]) -> tuple[RankChange, ...]:
    """Changes of place, in the new order."""
    old, new = (
        {row.system.newest.run_id: (rank, row.system) for board in boards for rank, row in enumerate(board.rows, 1)}
        for boards in (before, after)
    )
    changes = []
    for run_id, (rank, system) in new.items():
        old_rank, old_system = old.get(run_id, (None, None))
        if old_rank != rank:
            wers = old_system.wer if old_system else None, system.wer
            changes.append(RankChange(system.label, system.gpu, (old_rank, rank), wers))
    return tuple(changes)
