"""The clock, with a hand-written engine: each utterance once, and rates from totals."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.audio import corpus_of
from tests.support.bundles import result
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines import watchdog
from whisperbench.engines.base import PassUsage, Transcription
from whisperbench.errors import EngineError
from whisperbench.measure.load import MachineLoad
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.timing import Measurement, Pass, run_timed_passes


class ReversingEngine(FakeEngine):
    """Records what it receives, and returns the last transcript first."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[str] = []

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        utterances = list(utterances)
        self.received += [each.utt_id for each in utterances]
        return reversed(list(super().transcribe(utterances)))


def test_every_utterance_once_in_the_corpus_order(tmp_path: Path) -> None:
    """The longest are submitted first, also in the warm-up; each repeat has every utterance with its own text, in order
    of the corpus, and reports it under its number."""
    utterances = corpus_of(tmp_path, [0.2, 0.5, 0.3], inspected=True)
    engine, seen = ReversingEngine(), list[tuple[int, str]]()
    found = run_timed_passes(
        engine, utterances, repeats=2, warmup=2, hardware=NO_GPU,
        on_result=[lambda result: seen.append((result.repeat, result.utt_id))],
    )  # fmt: skip
    texts = [each.hypothesis for each in FakeEngine().transcribe(utterances)]
    for timed in found.passes:
        assert [each.utt_id for each in timed.results] == ["000", "001", "002"]
        assert [each.hypothesis for each in timed.results] == texts
    assert engine.received == ["001", "002", *(["001", "002", "000"] * 2)]
    assert seen == [(repeat, utt_id) for repeat in (0, 1) for utt_id in ("000", "002", "001")]


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no transcript of 3 of 3 utterances"), (2, "two transcripts of 00")]
)
def test_an_engine_that_loses_or_doubles_an_utterance_is_refused(tmp_path: Path, count: int, message: str) -> None:
    """Exactly one transcript per utterance: a rate over anything else would be wrong."""

    class Careless(FakeEngine):
        def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
            for text in super().transcribe(utterances):
                yield from [text] * count

    with pytest.raises(EngineError, match=message):
        run_timed_passes(Careless(), corpus_of(tmp_path, [0.2] * 3), repeats=1, warmup=0, hardware=NO_GPU)


def test_audio_that_the_engine_drops_is_no_transcript(tmp_path: Path) -> None:
    """Its text has no windows: it counts neither as an utterance nor for its seconds."""

    class Dropping(FakeEngine):
        def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
            for text in super().transcribe(utterances):
                dropped = {"hypothesis": "", "tokens": 0, "seconds": 0.0, "windows": 0}
                yield text if text.seconds < 30 else dataclasses.replace(text, **dropped)  # type: ignore[arg-type]

    found = run_timed_passes(Dropping(), corpus_of(tmp_path, [2.0, 70.0]), repeats=1, warmup=0, hardware=NO_GPU).median
    assert (found.utterances, found.audio_seconds) == (1, 2.0)


def timed(wall: float, *results: UtteranceResult, invalid: str | None = None) -> Pass:
    return Pass(wall_seconds=wall, cpu_seconds=1.0, results=results, invalid=invalid)


def test_rates_come_from_totals() -> None:
    """n / wall and audio / wall; never a mean of ratios."""
    found = timed(4.0, result(0, seconds=10.0, tokens=30), result(1, seconds=2.0, tokens=6))
    assert (found.reqs_per_sec, found.rtfx, found.output_tokens_per_sec) == (0.5, 3.0, 9.0)


def test_latency_percentiles_are_nearest_rank_and_absent_when_not_told() -> None:
    """The engine vllm-stock measures no latencies: then the percentile is missing, not zero."""
    found = timed(1.0, *(result(i, latency_seconds=i / 100) for i in range(1, 101)))
    assert found.latency_ms(50) == pytest.approx(500)
    assert found.latency_ms(95) == pytest.approx(950)
    assert timed(1.0, result(0, latency_seconds=None)).latency_ms(50) is None


def test_the_median_repeat_is_a_valid_repeat_that_was_measured() -> None:
    """Of two the slower one, of three the middle one; an invalid one counts only if none is valid."""
    passes = (*map(timed, (3.0, 1.0, 2.0)), timed(0.5, invalid="a pause"))
    assert Measurement(0.1, passes).median.wall_seconds == 2.0
    assert Measurement(0.1, passes[:2]).median.wall_seconds == 3.0
    assert Measurement(0.1, passes[3:]).median is passes[3]


def test_undisturbed_passes_are_preferred() -> None:
    """Where every pass was disturbed, the times of all of them are used, and the worst reason is given."""
    low, high = MachineLoad(2, 1.6, 0.3), MachineLoad(2, 1.0, 1.0)
    disturbed = [dataclasses.replace(timed(wall), load=load) for wall, load in ((4.0, low), (6.0, high))]
    mixed = Measurement(0.1, (disturbed[0], timed(2.0), disturbed[1]))
    assert (mixed.median.wall_seconds, mixed.is_disturbed) == (2.0, False)
    assert mixed.disturbance == "other programs used 50 % of the 2 cores in 2 of 3 passes"
    loaded = Measurement(0.1, tuple(disturbed))
    assert (loaded.median.wall_seconds, loaded.is_disturbed) == (6.0, True)
    assert Measurement(0.1, (timed(2.0),)).disturbance is None


def test_a_pause_makes_a_pass_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 30 s that is 3 times the longest of the warm-up; here in tenths of seconds."""
    monkeypatch.setattr(watchdog, "MIN_PAUSE_SECONDS", 0.3)

    class Pausing(FakeEngine):
        passes = 0

        def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
            self.passes += 1
            for text in super().transcribe(utterances):
                time.sleep(0.4 if self.passes == 2 and text.utt_id == "001" else 0.0)
                yield text

    found = run_timed_passes(Pausing(), corpus_of(tmp_path, [0.2] * 3), repeats=2, warmup=1, hardware=NO_GPU)
    assert [each.invalid for each in found.passes] == ["the engine made no progress for 0 s", None]
    assert len(found.passes[0].results) == 3
    assert found.median is found.passes[1]


def test_an_engine_that_failed_makes_a_pass_invalid(tmp_path: Path) -> None:
    """Its transcripts are complete, and its times are not those of this number of engines."""

    class Losing(FakeEngine):
        last_pass = PassUsage((1.0,), (1.0,), 0.0, ("engine 1 on here failed (killed)",))

    (timed,) = run_timed_passes(Losing(), corpus_of(tmp_path, [0.2]), repeats=1, warmup=0, hardware=NO_GPU).passes
    assert timed.invalid == "1 engine(s) failed: engine 1 on here failed (killed)"
