"""Stored raw transcripts scored again with today's normaliser; the server keeps what it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.leaderboard import Board
from whisperbench.measure.clock import Transcript
from whisperbench.measure.score import Score, score
from whisperbench.results.contents import accuracy_metrics
from whisperbench.results.keys import with_normalizer
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.results.run_record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts


@dataclasses.dataclass(frozen=True, slots=True)
class Rescored:
    """A run with the metrics and the accuracy key that it would have today, and its utterances' new counts."""

    run: RunRecord
    transcripts: StoredTranscripts


@dataclasses.dataclass(frozen=True, slots=True)
class RankChange:
    """A system before and after rescoring; None where it had no rank or no WER."""

    label: str
    gpu: str
    rank: tuple[int | None, int | None]
    wer: tuple[float | None, float | None]


def rescore(run: RunRecord, stored: StoredTranscripts | None, seed: int) -> Rescored | None:
    """None where there is nothing to score: no transcripts, or one without a reference.

    Raises:
        CorpusError: a text cannot be normalised; the utterance is named.
    """
    if not stored or run.metric("wer") is None or any(utterance.reference is None for utterance in stored):
        return None
    transcripts = [Transcript(u.utt_id, u.speaker, u.seconds, u.reference, u.hypothesis, 0, None, 1) for u in stored]
    found = score(transcripts, run.params.get("language", "en"), seed)
    old = {n: v for n, v in run.metrics.items() if n not in ("wer", "cer", "wer_ci_low", "wer_ci_high")}
    accuracy_key = with_normalizer(run.accuracy_key or "", found.normalizer)
    return Rescored(
        dataclasses.replace(
            run, metrics={**old, **accuracy_metrics(found)}, tags={**run.tags, ACCURACY_KEY: accuracy_key}
        ),
        _with_counts(stored, found),
    )


def rank_changes(before: Sequence[Board], after: Sequence[Board]) -> tuple[RankChange, ...]:
    """Systems whose rank is another one now, in the new order."""
    old = {row.system.newest.run_id: row for board in before for row in board.rows}
    changes = []
    for row in (row for board in after for row in board.rows):
        system, was = row.system, old.get(row.system.newest.run_id)
        if (was.rank if was else None) != row.rank:
            wer = (was.system.wer if was else None, system.wer)
            ranks = (was.rank if was else None, row.rank)
            changes.append(RankChange(system.label, system.gpu, ranks, wer))
    return tuple(changes)


def _with_counts(stored: StoredTranscripts, found: Score) -> StoredTranscripts:
    return tuple(
        dataclasses.replace(old, errors=new.counts.errors, words=new.counts.words)
        for old, new in zip(stored, found.utterances, strict=True)
    )
