"""The loop that keeps a model busy, with a hand-written model: order, bounds, failures; and stock vLLM beside it."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.audio import corpus_of
from tests.support.fakes import text_of
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.pipeline import PipelineLimits, feed
from whisperbench.engines.vllm.stock import VllmStock
from whisperbench.engines.windows import Window, WindowOutput
from whisperbench.errors import AudioError, EngineError

PLAN = PipelineLimits("split", reader_threads=3, in_flight=8, burst=2)


class FakeModel:
    """A `SteppedModel` whose text depends on the audio alone, one window a step, `delay` seconds each."""

    def __init__(self) -> None:
        self.delay = 0.0
        self._waiting: collections.deque[Window] = collections.deque()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def prepare(self, window: Window) -> Any:
        return len(window.audio)

    def submit(self, window: Window, prepared: Any) -> None:
        assert prepared == len(window.audio)
        self._waiting.append(window)

    def step(self) -> Sequence[WindowOutput]:
        time.sleep(self.delay)
        return [window_text(self._waiting.popleft())]


class StockWithoutVllm(VllmStock):
    """Stock vLLM but for vLLM: its one call is answered here."""

    def __init__(self, long_audio: str) -> None:
        self.settings: Any = SimpleNamespace(config=SimpleNamespace(long_audio=long_audio))

    def _generate(self, windows: list[Window]) -> list[Any]:
        found = [window_text(window) for window in windows]
        completions = [SimpleNamespace(text=f" {text.text}", token_ids=range(text.tokens)) for text in found]
        return [SimpleNamespace(outputs=[completion]) for completion in completions]


def window_text(window: Window) -> WindowOutput:
    text = text_of(window.audio, window.forced_tokens)
    return WindowOutput(window, text, len(text.split()))


def texts(model: FakeModel, utterances: Sequence[Utterance], plan: PipelineLimits) -> dict[str, Transcription]:
    return {text.utt_id: text for text in feed(model, utterances, plan)}


def texts_of_stock(utterances: Sequence[Utterance], long_audio: str) -> dict[str, Transcription]:
    return {text.utt_id: text for text in StockWithoutVllm(long_audio).transcribe(utterances)}


class WatchedModel(FakeModel):
    """Hands out in bursts and out of order, and remembers how full it was."""

    def __init__(self) -> None:
        super().__init__()
        self.fullest = 0
        self.prepared: set[int] = set()

    def prepare(self, window: Window) -> Any:
        self.prepared.add(threading.get_ident())
        return super().prepare(window)

    def submit(self, window: Window, prepared: Any) -> None:
        super().submit(window, prepared)
        self.fullest = max(self.fullest, self.in_flight)

    def step(self) -> Sequence[WindowOutput]:
        self._waiting.reverse()
        return [*super().step(), *(super().step() if self._waiting else [])]


def test_every_clip_once_with_its_own_text(tmp_path: Path) -> None:
    """Whatever order the model finishes in; and stock vLLM's way gives the same."""
    utterances = corpus_of(tmp_path, [0.5 + i % 7 for i in range(40)])
    found = texts(WatchedModel(), utterances, PLAN)
    ids = [utterance.utt_id for utterance in utterances]
    assert sorted(found) == ids
    stock = texts_of_stock(utterances, "split")
    assert [found[i].hypothesis for i in ids] == [stock[i].hypothesis for i in ids]


def test_the_engine_is_kept_full_and_never_over_full(tmp_path: Path) -> None:
    """Requests in flight reach the bound and do not pass it; several threads prepare."""
    model = WatchedModel()
    model.delay = 0.02  # slower than the readers
    texts(model, corpus_of(tmp_path, [1.0] * 60), PLAN)
    assert model.fullest == PLAN.in_flight
    assert 2 <= len(model.prepared) <= PLAN.reader_threads


def test_what_is_prepared_ahead_is_bounded(tmp_path: Path) -> None:
    """A slow engine does not let the readers run away with the memory."""
    utterances = corpus_of(tmp_path, [0.2] * 100)
    started = threading.Event()
    read: list[str] = []

    class Counted:
        def __init__(self, path: Path) -> None:
            self.name, self._path = path.name, path

        def open(self, mode: Any) -> Any:
            read.append(self.name)
            return self._path.open(mode)

    counted = [dataclasses.replace(u, audio=Counted(tmp_path / f"{u.utt_id}.wav")) for u in utterances]
    results = feed(FakeModel(), counted, PLAN)
    next(results)
    started.wait(0.3)
    assert len(read) <= PLAN.in_flight + PLAN.ahead + PLAN.burst
    assert len(list(results)) == 99


def test_long_audio_is_split_and_joined(tmp_path: Path) -> None:
    """A 70 s file goes through as parts and comes back as one text of 70 s."""
    utterances = corpus_of(tmp_path, [70.0, 2.0])
    for found in (texts(FakeModel(), utterances, PLAN), texts_of_stock(utterances, "split")):
        first, second = found["000"], found["001"]
        assert (first.windows, round(first.seconds), second.windows) == (3, 70, 1)
        assert len(first.hypothesis.split()) == first.tokens >= 70


@pytest.mark.parametrize(("policy", "ids", "seconds"), [("trim", 2, 32.0), ("drop", 1, 2.0)])
def test_trimmed_and_dropped_audio_is_counted_as_such(tmp_path: Path, policy: str, ids: int, seconds: float) -> None:
    """Trimmed audio counts for the seconds that the model got; dropped audio for none, and has no window."""
    utterances = corpus_of(tmp_path, [70.0, 2.0])
    plan = dataclasses.replace(PLAN, long_audio=policy)
    for found in (texts(FakeModel(), utterances, plan), texts_of_stock(utterances, policy)):
        assert len(found) == 2
        assert sum(text.windows > 0 for text in found.values()) == ids
        assert sum(text.seconds for text in found.values()) == pytest.approx(seconds)


def test_random_weights_write_as_many_tokens_as_are_asked_for(tmp_path: Path) -> None:
    """Over all parts of long audio together."""
    utterances = [dataclasses.replace(each, forced_tokens=20) for each in corpus_of(tmp_path, [2.0, 65.0])]
    found = texts(FakeModel(), utterances, PLAN)
    assert found["000"].tokens == 20
    assert found["001"].tokens == pytest.approx(20, abs=1)


@pytest.mark.parametrize("damage", ["corrupt", "removed"])
@pytest.mark.parametrize("front_end", ["pipelined", "stock"])
def test_a_reader_that_fails_ends_the_pass_with_the_files_name(tmp_path: Path, damage: str, front_end: str) -> None:
    """A file that breaks while the clock runs is named, soon, and no reader thread is left."""
    utterances = corpus_of(tmp_path, [0.5] * 50)
    broken = tmp_path / "030.wav"
    broken.write_bytes(b"RIFF nonsense") if damage == "corrupt" else broken.unlink()
    started = time.perf_counter()
    with pytest.raises(AudioError, match=r"030\.wav"):
        texts(FakeModel(), utterances, PLAN) if front_end == "pipelined" else texts_of_stock(utterances, "split")
    assert time.perf_counter() - started < 5
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_a_model_that_dies_is_reported(tmp_path: Path) -> None:
    """Its error comes through, and nothing hangs."""

    class DyingModel(FakeModel):
        def step(self) -> Sequence[WindowOutput]:
            raise EngineError("The engine died while it worked: out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        texts(DyingModel(), corpus_of(tmp_path, [0.5] * 9), PLAN)


def test_latencies_are_told_by_the_feed_only(tmp_path: Path) -> None:
    """Stock vLLM hands everything out at its end: it tells none, which is not 0."""
    utterances = corpus_of(tmp_path, [0.5, 0.5])
    assert all((text.latency_seconds or 0) > 0 for text in texts(FakeModel(), utterances, PLAN).values())
    assert all(text.latency_seconds is None for text in texts_of_stock(utterances, "split").values())
