"""The stored transcripts of a run, and the paired test of two runs on the same utterances."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from whisperbench.compare.groups import Group
from whisperbench.compare.leaderboard import contenders
from whisperbench.measure.bootstrap import PairedTest, paired_bootstrap

NO_TRANSCRIPTS = "no transcripts"


@dataclasses.dataclass(frozen=True, slots=True)
class StoredUtterance:
    """One row of transcripts.json; `errors` and `words` are None where there was no reference."""

    utt_id: str
    speaker: str | None
    seconds: float
    reference: str | None
    hypothesis: str
    errors: int | None
    words: int | None


StoredTranscripts = tuple[StoredUtterance, ...]


def read_table(text: str) -> StoredTranscripts | None:
    """transcripts.json as utterances in its order; None where it is not such a table."""
    try:
        table = json.loads(text)
        columns = {name: place for place, name in enumerate(table["columns"])}
        return tuple(_utterance({name: row[place] for name, place in columns.items()}) for row in table["data"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def paired_test(a: StoredTranscripts | None, b: StoredTranscripts | None, seed: int) -> PairedTest | str:
    """Whether the errors of `a` and `b` differ (difference: a − b), or why that cannot be tested.

    Speakers are resampled; utterances where a speaker is not known.
    """
    if not a or not b:
        return NO_TRANSCRIPTS
    of_a, of_b = ({utterance.utt_id: utterance for utterance in each} for each in (a, b))
    if len(of_a) != len(a) or len(of_b) != len(b):
        return "an utterance occurs twice"
    if different := of_a.keys() ^ of_b.keys():
        return f"different utterances ({len(different)} are in one run only)"
    pairs = [(of_a[utt_id], of_b[utt_id]) for utt_id in sorted(of_a)]
    counts = [(x.errors, y.errors, x.words) for x, y in pairs if x.words == y.words]
    if len(counts) < len(pairs):
        return f"different references ({len(pairs) - len(counts)} utterances)"
    known = [(e, f, w) for e, f, w in counts if e is not None and f is not None and w is not None]
    if len(known) < len(pairs) or not any(words for _, _, words in known):
        return "no references"
    speakers = [x.speaker for x, _ in pairs if x.speaker is not None]
    clusters: Sequence[str] = speakers if len(speakers) == len(pairs) else [x.utt_id for x, _ in pairs]
    errors_a, errors_b, words = zip(*known, strict=True)
    return paired_bootstrap(errors_a, errors_b, words, clusters, seed)


def compare_contenders(
    group: Group, transcripts: Mapping[str, StoredTranscripts | None], seed: int
) -> dict[str, PairedTest | str]:
    """The paired test of each contender against the most accurate one, by its typical run's id."""
    best, others = contenders(group)[:1], contenders(group)[1:]
    if not others:
        return {}
    typical = best[0].typical.run_id
    of_best = transcripts.get(typical)
    tests: dict[str, PairedTest | str] = {
        c.typical.run_id: paired_test(transcripts.get(c.typical.run_id), of_best, seed) for c in others
    }
    if not of_best:
        tests[typical] = NO_TRANSCRIPTS
    return tests


def _utterance(row: Mapping[str, Any]) -> StoredUtterance:
    kinds = [row[name] for name in ("substitutions", "deletions", "insertions")]
    words = row["words"]
    known = words is not None and None not in kinds
    return StoredUtterance(
        utt_id=str(row["utt_id"]),
        speaker=None if row["speaker"] is None else str(row["speaker"]),
        seconds=float(row["seconds"]),
        reference=None if row["reference"] is None else str(row["reference"]),
        hypothesis=str(row["hypothesis"]),
        errors=int(sum(kinds)) if known else None,
        words=int(words) if known else None,
    )
