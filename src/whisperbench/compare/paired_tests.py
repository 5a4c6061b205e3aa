"""Paired tests of runs on the same utterances: of two, and of a board's rows against the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.rank import tested_systems
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import JointBootstrap, PairedTest

NO_TRANSCRIPTS = "no transcripts"


def paired_test(a: StoredTranscripts | None, b: StoredTranscripts | None, seed: int) -> PairedTest | str:
    """Whether the errors of `a` and `b` differ (difference: a − b), or why that cannot be tested.

    Speakers are resampled; utterances where a speaker is not known.
    """
    reason = not_paired(a, b)
    return _resampled((a, b), seed).test(0, 1) if a and b and reason is None else reason or NO_TRANSCRIPTS


def compare_contenders(
    group: Group, transcripts: Mapping[str, StoredTranscripts | None], seed: int
) -> dict[str, PairedTest | str]:
    """The test of each contender against the most accurate one, by its typical run's id, at one level for all.

    Of several that are equally accurate, each is tested against the one that it comes nearest to.
    """
    rivals = [system.typical for system in tested_systems(group)]
    if len(rivals) < 2:
        return {}
    best = [run.run_id for run in rivals if run.metric("wer") == rivals[0].metric("wer")]
    known = {run.run_id: transcripts.get(run.run_id) for run in rivals}
    reference = next((found for run_id in best if (found := known[run_id])), None)
    tests: dict[str, PairedTest | str] = {}
    paired: dict[str, StoredTranscripts] = {}
    for run_id, found in known.items():
        reason = not_paired(found, reference)
        if found and reason is None:
            paired[run_id] = found
        else:
            tests[run_id] = reason or NO_TRANSCRIPTS
    places = {run_id: place for place, run_id in enumerate(paired)}
    if len(places) > 1:
        joint = _resampled(list(paired.values()), seed)
        for run_id in (each for each in paired if each not in best):
            against = [joint.test(places[run_id], places[other]) for other in best if other in paired]
            tests[run_id] = max(against, key=lambda test: test.p_value)
    return tests


def not_paired(a: StoredTranscripts | None, b: StoredTranscripts | None) -> str | None:
    """Why two runs cannot be compared utterance by utterance; None where they can."""
    if not a or not b:
        return NO_TRANSCRIPTS
    of_a, of_b = ({utterance.utt_id: utterance for utterance in each} for each in (a, b))
    if len(of_a) != len(a) or len(of_b) != len(b):
        return "an utterance occurs twice"
    if different := of_a.keys() ^ of_b.keys():
        return f"different utterances ({len(different)} are in one run only)"
    if different_words := sum(x.words != of_b[utt_id].words for utt_id, x in of_a.items()):
        return f"different references ({different_words} utterances)"
    if any(None in (x.errors, x.words) for x in (*a, *b)) or not any(x.words for x in a):
        return "no references"
    return None


def _resampled(runs: Sequence[StoredTranscripts], seed: int) -> JointBootstrap:
    """Runs that can be paired.  Speakers are resampled; utterances where a speaker is not known."""
    ordered = [sorted(run, key=lambda utterance: utterance.utt_id) for run in runs]
    errors = [[utterance.errors or 0 for utterance in run] for run in ordered]
    speakers = [utterance.speaker for utterance in ordered[0] if utterance.speaker is not None]
    clusters = speakers if len(speakers) == len(ordered[0]) else [utterance.utt_id for utterance in ordered[0]]
    return JointBootstrap.of(errors, [utterance.words or 0 for utterance in ordered[0]], clusters, seed)
