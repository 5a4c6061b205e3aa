"""Paired tests on the same utterances: of two runs, and of the rows of a leaderboard against the best row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.rank import tested_systems
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import JointBootstrap, PairedTest

NO_TRANSCRIPTS = "no transcripts"


def paired_test(a: StoredTranscripts | None, b: StoredTranscripts | None, seed: int) -> PairedTest | str:
    """The test of the difference a − b of the WER, or the reason why it is impossible.

    Speakers are resampled, or utterances if a speaker is unknown.
    """
    reason = not_paired(a, b)
    return _resampled((a, b), seed).test(0, 1) if a and b and reason is None else reason or NO_TRANSCRIPTS


def paired_tests(
    group: Group, transcripts: Mapping[str, StoredTranscripts | None], seed: int
) -> dict[str, PairedTest | str]:
    """Tests of the tested systems against the most accurate one, by the id of the system's typical run.

    The significance level holds for all tests together.  If several systems are the most accurate, the test with the
    highest p-value counts.
    """
    tested = tested_systems(group)
    if len(tested) < 2:
        return {}
    stored = {system.typical.run_id: transcripts.get(system.typical.run_id) for system in tested}
    best = [system.typical.run_id for system in tested if system.wer == tested[0].wer]
    reference = next((found for run_id in best if (found := stored[run_id])), None)
    reasons = {run_id: not_paired(found, reference) for run_id, found in stored.items()}
    paired = {run_id: found for run_id, found in stored.items() if found and reasons[run_id] is None}
    tests: dict[str, PairedTest | str] = {run_id: reason for run_id, reason in reasons.items() if reason}
    if len(paired) > 1:
        joint, index = _resampled(list(paired.values()), seed), {run_id: i for i, run_id in enumerate(paired)}
        for run_id in paired.keys() - set(best):
            against = [joint.test(index[run_id], index[other]) for other in best if other in index]
            tests[run_id] = max(against, key=lambda test: test.p_value)
    return tests


def not_paired(a: StoredTranscripts | None, b: StoredTranscripts | None) -> str | None:
    """The reason why two runs cannot be compared utterance by utterance, or None."""
    if not a or not b:
        return NO_TRANSCRIPTS
    of_a, of_b = ({utterance.utt_id: utterance for utterance in each} for each in (a, b))
    if len(of_a) != len(a) or len(of_b) != len(b):
        return "an utterance occurs twice"
    if different := of_a.keys() ^ of_b.keys():
        return f"different utterances ({len(different)} are in one run only)"
    if changed := sum(x.units != of_b[utt_id].units for utt_id, x in of_a.items()):
        return f"different references ({changed} utterances)"
    if any(None in (x.errors, x.units) for x in (*a, *b)) or not any(x.units for x in a):
        return "no references"
    return None


def _resampled(runs: Sequence[StoredTranscripts], seed: int) -> JointBootstrap:
    """Resample the speakers of paired runs, or their utterances if a speaker is unknown."""
    ordered = [sorted(run, key=lambda utterance: utterance.utt_id) for run in runs]
    errors = [[utterance.errors or 0 for utterance in run] for run in ordered]
    speakers = [utterance.speaker for utterance in ordered[0] if utterance.speaker is not None]
    clusters = speakers if len(speakers) == len(ordered[0]) else [utterance.utt_id for utterance in ordered[0]]
    return JointBootstrap.of(errors, [utterance.units or 0 for utterance in ordered[0]], clusters, seed)
