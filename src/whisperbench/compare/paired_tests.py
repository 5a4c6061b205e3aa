"""The paired test of two runs on the same utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.leaderboard import contenders
from whisperbench.measure.bootstrap import PairedTest, paired_bootstrap
from whisperbench.results.transcripts import StoredTranscripts

NO_TRANSCRIPTS = "no transcripts"


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
