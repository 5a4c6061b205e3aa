"""The clock, with a hand-written engine: each utterance once, and rates from totals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.audio import corpus_of
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.base import Clip, Text
from whisperbench.errors import EngineError
from whisperbench.measure.timing import Measurement, Pass, Transcript, clips_of, run_timed_passes


class UnorderedEngine(FakeEngine):
    """Hands out the last first."""

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        return reversed(list(super().transcribe(clips)))


def test_every_utterance_once_in_the_corpus_order(tmp_path: Path) -> None:
    """Whatever order the engine finishes in, a pass has each utterance once, in order, with its own text."""
    utterances = corpus_of(tmp_path, [0.5 + i % 7 for i in range(20)])
    seen: list[str] = []
    found = run_timed_passes(
        UnorderedEngine(), utterances, repeats=1, warmup=2, hardware=NO_GPU,
        on_result=[lambda _r, t: seen.append(t.utt_id)],
    ).median  # fmt: skip
    assert [t.utt_id for t in found.transcripts] == [u.id for u in utterances]
    assert seen == [u.id for u in reversed(utterances)]
    texts = {t.index: t.text for t in FakeEngine().transcribe(clips_of(utterances))}
    assert [t.hypothesis for t in found.transcripts] == [texts[i] for i in range(20)]


def test_the_longest_are_handed_out_first(tmp_path: Path) -> None:
    """Of all rounds, and in the warm-up before them; the transcripts are in the corpus's order again."""
    lengths, handed = [0.2, 0.5, 0.3], list[int]()

    class Noting(FakeEngine):
        def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
            clips = list(clips)
            handed.extend(clip.index for clip in clips)
            return super().transcribe(clips)

    utterances = corpus_of(tmp_path, lengths)
    found = run_timed_passes(
        Noting(), utterances, repeats=1, warmup=2, hardware=NO_GPU, rounds=2, seconds=lengths
    ).median  # fmt: skip
    assert handed == [1, 4, *(1, 4, 2, 5, 0, 3)]
    assert [t.utt_id for t in found.transcripts] == 2 * [u.id for u in utterances]


@pytest.mark.parametrize(("count", "says"), [(0, "0 texts for 3 utterances"), (2, "two texts for 00")])
def test_an_engine_that_loses_or_doubles_an_utterance_is_refused(tmp_path: Path, count: int, says: str) -> None:
    """Exactly one text per clip: a rate over anything else would be a lie."""

    class Careless(FakeEngine):
        def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
            for text in super().transcribe(clips):
                yield from [text] * count

    with pytest.raises(EngineError, match=says):
        run_timed_passes(Careless(), corpus_of(tmp_path, [0.2] * 3), repeats=1, warmup=0, hardware=NO_GPU)


def test_audio_that_the_engine_drops_is_no_transcript(tmp_path: Path) -> None:
    """Its text has no windows: it counts neither as an utterance nor for its seconds."""

    class Dropping(FakeEngine):
        def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
            for text in super().transcribe(clips):
                yield text if text.audio_seconds < 30 else Text(text.index, "", 0, 0.0, 0)

    found = run_timed_passes(Dropping(), corpus_of(tmp_path, [2.0, 70.0]), repeats=1, warmup=0, hardware=NO_GPU).median
    assert (found.utterances, found.audio_seconds) == (1, 2.0)


def test_random_weights_write_as_many_tokens_as_the_reference_has(tmp_path: Path) -> None:
    """The clock asks for them; the engine writes them."""
    clips = clips_of(corpus_of(tmp_path, [2.0]), lambda text: 10 * len(text.split()))
    (text,) = FakeEngine().transcribe(clips)
    assert (clips[0].tokens, text.tokens) == (20, 20)


def transcript(seconds: float, tokens: int, latency: float | None = None) -> Transcript:
    return Transcript("u", None, seconds, None, "", tokens, latency, 1)


def test_rates_come_from_totals() -> None:
    """n / wall and audio / wall; never a mean of ratios."""
    timed = Pass(4.0, 2.0, (transcript(10, 30), transcript(2, 6)), None)
    assert (timed.reqs_per_sec, timed.rtfx, timed.output_tokens_per_sec) == (0.5, 3.0, 9.0)


def test_latency_percentiles_are_nearest_rank_and_absent_when_not_told() -> None:
    """The stock front end does not tell latencies: then there is no percentile, not a zero."""
    timed = Pass(1.0, 1.0, tuple(transcript(1, 1, i / 100) for i in range(1, 101)), None)
    assert timed.latency_ms(50) == pytest.approx(500)
    assert timed.latency_ms(95) == pytest.approx(950)
    assert Pass(1.0, 1.0, (transcript(1, 1),), None).latency_ms(50) is None


def test_the_median_repeat_is_a_repeat_that_was_measured() -> None:
    """With two repeats the slower one; with three the middle one."""
    passes = tuple(Pass(wall, 1.0, (), None) for wall in (3.0, 1.0, 2.0))
    assert Measurement(0.1, passes).median.wall_seconds == 2.0
    assert Measurement(0.1, passes[:2]).median.wall_seconds == 3.0


def test_repeats_are_counted_and_warm_up_is_not(tmp_path: Path) -> None:
    """Each repeat reports under its number; the warm-up reports nothing."""
    seen: list[int] = []
    found = run_timed_passes(
        FakeEngine(), corpus_of(tmp_path, [0.2] * 5), repeats=3, warmup=2, hardware=NO_GPU,
        on_result=[lambda repeat, _t: seen.append(repeat)],
    )  # fmt: skip
    assert sorted(seen) == [0] * 5 + [1] * 5 + [2] * 5
    assert len(found.passes) == 3
    assert BenchmarkConfig().repeats == 1
