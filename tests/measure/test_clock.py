"""The pipeline and the clock, with a hand-written engine: order, bounds, failures, and rates from totals."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench.engines.vllm import Output, Request
from whisperbench.errors import AudioError, EngineError
from whisperbench.inputs.corpus import Utterance
from whisperbench.measure.clock import Measurement, Pass, Plan, Transcript, measure, transcribe
from whisperbench.options import BenchmarkConfig

PLAN = Plan("pipelined", "split", workers=3, in_flight=8, burst=2, warmup=2)


def corpus_of(folder: Path, seconds: Sequence[float]) -> list[Utterance]:
    """Utterances of these lengths; each is noise of its own."""
    utterances = []
    for index, length in enumerate(seconds):
        path = folder / f"{index:03}.wav"
        samples = np.random.default_rng(index).uniform(-0.1, 0.1, int(length * 16_000))
        soundfile.write(path, samples, 16_000)
        utterances.append(Utterance(path.stem, path, f"word {index}", str(index % 3)))
    return utterances


class WatchedEngine(FakeEngine):
    """Hands out in bursts and out of order, and remembers how full it was."""

    def __init__(self) -> None:
        super().__init__()
        self.fullest = 0
        self.prepared: set[int] = set()

    def prepare(self, request: Request) -> Any:
        self.prepared.add(threading.get_ident())
        return super().prepare(request)

    def submit(self, request: Request, prepared: Any) -> None:
        super().submit(request, prepared)
        self.fullest = max(self.fullest, self.in_flight)

    def step(self) -> Sequence[Output]:
        self._waiting.reverse()
        return [*super().step(), *(super().step() if self._waiting else [])]


def test_every_utterance_once_in_the_corpus_order(tmp_path: Path) -> None:
    """Whatever order the engine finishes in, a pass has each utterance once, in order, with its own text."""
    utterances = corpus_of(tmp_path, [0.5 + i % 7 for i in range(40)])
    seen: list[str] = []
    found = measure(
        WatchedEngine(), utterances, PLAN, repeats=1, hardware=NO_GPU, on_result=lambda _r, t: seen.append(t.utt_id)
    ).median
    assert [t.utt_id for t in found.transcripts] == [u.id for u in utterances]
    assert sorted(seen) == [u.id for u in utterances]
    stock = dict(transcribe(FakeEngine(), utterances, dataclasses.replace(PLAN, front_end="stock")))
    assert [t.hypothesis for t in found.transcripts] == [stock[i].hypothesis for i in range(40)]


def test_the_engine_is_kept_full_and_never_over_full(tmp_path: Path) -> None:
    """Requests in flight reach the bound and do not pass it; several threads prepare."""
    engine = WatchedEngine()
    engine.delay = 0.02  # slower than the readers
    list(transcribe(engine, corpus_of(tmp_path, [1.0] * 60), PLAN))
    assert engine.fullest == PLAN.in_flight
    assert 2 <= len(engine.prepared) <= PLAN.workers


def test_what_is_prepared_ahead_is_bounded(tmp_path: Path) -> None:
    """A slow engine does not let the readers run away with the memory."""
    utterances = corpus_of(tmp_path, [0.2] * 100)
    engine, started = FakeEngine(), threading.Event()
    read: list[str] = []

    class Counted:
        def __init__(self, path: Path) -> None:
            self.name, self._path = path.name, path

        def open(self, mode: Any) -> Any:
            read.append(self.name)
            return self._path.open(mode)

    counted = [dataclasses.replace(u, audio=Counted(tmp_path / f"{u.id}.wav")) for u in utterances]
    results = transcribe(engine, counted, PLAN)
    next(results)
    started.wait(0.3)
    assert len(read) <= 2 * PLAN.in_flight + 2
    assert len(list(results)) == 99


def test_long_audio_is_split_and_joined(tmp_path: Path) -> None:
    """A 70 s file goes through as parts and comes back as one transcript of 70 s."""
    utterances = corpus_of(tmp_path, [70.0, 2.0])
    (_, first), (_, second) = sorted(transcribe(FakeEngine(), utterances, PLAN))
    assert (first.windows, round(first.seconds), second.windows) == (3, 70, 1)
    assert len(first.hypothesis.split()) == first.output_tokens >= 70


@pytest.mark.parametrize(("policy", "ids", "seconds"), [("trim", 2, 32.0), ("drop", 1, 2.0)])
def test_trimmed_and_dropped_audio_is_counted_as_such(tmp_path: Path, policy: str, ids: int, seconds: float) -> None:
    """Trimmed audio counts for the seconds that the model got; dropped audio does not count at all."""
    found = dict(
        transcribe(FakeEngine(), corpus_of(tmp_path, [70.0, 2.0]), dataclasses.replace(PLAN, long_audio=policy))
    )
    assert len(found) == ids
    assert sum(t.seconds for t in found.values()) == pytest.approx(seconds)


def test_random_weights_write_as_many_tokens_as_the_reference_has(tmp_path: Path) -> None:
    """With `count_tokens` the length of the text is the reference's, over all parts of long audio."""
    plan = dataclasses.replace(PLAN, count_tokens=lambda text: 10 * len(text.split()))
    found = dict(transcribe(FakeEngine(), corpus_of(tmp_path, [2.0, 65.0]), plan))
    assert found[0].output_tokens == 20
    assert found[1].output_tokens == pytest.approx(20, abs=1)


@pytest.mark.parametrize("damage", ["corrupt", "removed"])
@pytest.mark.parametrize("front_end", ["pipelined", "stock"])
def test_a_reader_that_fails_ends_the_pass_with_the_files_name(tmp_path: Path, damage: str, front_end: str) -> None:
    """A file that breaks while the clock runs is named, soon, and no reader thread is left."""
    utterances = corpus_of(tmp_path, [0.5] * 50)
    broken = tmp_path / "030.wav"
    broken.write_bytes(b"RIFF nonsense") if damage == "corrupt" else broken.unlink()
    started = time.perf_counter()
    with pytest.raises(AudioError, match=r"030\.wav"):
        list(transcribe(FakeEngine(), utterances, dataclasses.replace(PLAN, front_end=front_end)))
    assert time.perf_counter() - started < 5
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_an_engine_that_dies_is_reported(tmp_path: Path) -> None:
    """The engine's error comes through, and nothing hangs."""

    class DyingEngine(FakeEngine):
        def step(self) -> Sequence[Output]:
            raise EngineError("The engine died while it worked: out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        list(transcribe(DyingEngine(), corpus_of(tmp_path, [0.5] * 9), PLAN))


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
    found = measure(
        FakeEngine(), corpus_of(tmp_path, [0.2] * 5), PLAN, repeats=3, hardware=NO_GPU,
        on_result=lambda repeat, _t: seen.append(repeat),
    )  # fmt: skip
    assert sorted(seen) == [0] * 5 + [1] * 5 + [2] * 5
    assert len(found.passes) == 3
    assert BenchmarkConfig().repeats == 1
