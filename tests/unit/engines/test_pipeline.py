"""Input pipeline with a fake model, and engine=vllm-stock without vLLM: order, limits and failures."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
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
    """A `SteppedModel` whose transcript depends on the audio only.

    It returns outputs in pairs and out of order, and records the maximum number in flight.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.fullest = delay, 0
        self.prepared: set[int] = set()
        self._waiting: collections.deque[Window] = collections.deque()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def prepare(self, window: Window) -> Any:
        self.prepared.add(threading.get_ident())
        return len(window.audio)

    def submit(self, window: Window, prepared: Any) -> None:
        assert prepared == len(window.audio)
        self._waiting.append(window)
        self.fullest = max(self.fullest, self.in_flight)

    def step(self) -> Sequence[WindowOutput]:
        time.sleep(self.delay)
        self._waiting.reverse()
        return [window_text(self._waiting.popleft()) for _ in range(min(2, self.in_flight))]


class StockWithoutVllm(VllmStock):
    """engine=vllm-stock with a fake `LLM.generate`."""

    def __init__(self, long_audio: str) -> None:
        self.settings: Any = SimpleNamespace(config=SimpleNamespace(long_audio=long_audio))

    def _generate(self, windows: list[Window]) -> list[Any]:
        found = [window_text(window) for window in windows]
        completions = [SimpleNamespace(text=f" {text.text}", token_ids=range(text.tokens)) for text in found]
        return [SimpleNamespace(outputs=[completion]) for completion in completions]


def window_text(window: Window) -> WindowOutput:
    text = text_of(window.audio, window.forced_tokens)
    return WindowOutput(window, text, len(text.split()))


def texts_of_pipeline(utterances: Sequence[Utterance], long_audio: str = "split") -> dict[str, Transcription]:
    plan = dataclasses.replace(PLAN, long_audio=long_audio)
    return {text.utt_id: text for text in feed(FakeModel(), utterances, plan)}


def texts_of_stock(utterances: Sequence[Utterance], long_audio: str = "split") -> dict[str, Transcription]:
    return {text.utt_id: text for text in StockWithoutVllm(long_audio).transcribe(utterances)}


both_engines = pytest.mark.parametrize("texts", [texts_of_pipeline, texts_of_stock])
Texts = Callable[..., dict[str, Transcription]]


def test_every_utterance_has_its_transcript_once(tmp_path: Path) -> None:
    """The order of outputs does not matter, and engine=vllm-stock has equal results, but no latencies."""
    utterances = corpus_of(tmp_path, [0.5 + i % 7 for i in range(40)])
    found, stock = texts_of_pipeline(utterances), texts_of_stock(utterances)
    ids = [utterance.utt_id for utterance in utterances]
    assert sorted(found) == ids
    assert [found[i].hypothesis for i in ids] == [stock[i].hypothesis for i in ids]
    assert all((text.latency_seconds or 0) > 0 for text in found.values())
    assert all(text.latency_seconds is None for text in stock.values())


def test_windows_in_flight_reach_their_limit_only(tmp_path: Path) -> None:
    """The number of requests in flight reaches its limit and does not exceed it; several threads prepare."""
    model = FakeModel(delay=0.04)  # slower than the readers
    assert len(list(feed(model, corpus_of(tmp_path, [1.0] * 60), PLAN))) == 60
    assert model.fullest == PLAN.in_flight
    assert 2 <= len(model.prepared) <= PLAN.reader_threads


def test_what_is_prepared_ahead_is_bounded(tmp_path: Path) -> None:
    """While no transcript is fetched, the readers stop at the limit."""
    read: list[str] = []

    class Counted:
        def __init__(self, path: Path) -> None:
            self.name, self._path = path.name, path

        def open(self, mode: Any) -> Any:
            read.append(self.name)
            return self._path.open(mode)

    utterances = corpus_of(tmp_path, [0.2] * 100)
    counted = [dataclasses.replace(u, audio=Counted(tmp_path / f"{u.utt_id}.wav")) for u in utterances]
    results = feed(FakeModel(), counted, PLAN)
    next(results)
    time.sleep(0.3)
    assert len(read) <= PLAN.in_flight + PLAN.ahead + PLAN.burst
    assert len(list(results)) == 99


@both_engines
def test_long_audio_is_split_and_joined(tmp_path: Path, texts: Texts) -> None:
    """A file of 70 s is transcribed in parts and has one transcript of 70 s."""
    found = texts(corpus_of(tmp_path, [70.0, 2.0]))
    first, second = found["000"], found["001"]
    assert (first.windows, round(first.seconds), second.windows) == (3, 70, 1)
    assert len(first.hypothesis.split()) == first.tokens >= 70


@both_engines
@pytest.mark.parametrize(("policy", "windows", "seconds"), [("trim", [1, 1], 32.0), ("drop", [0, 1], 2.0)])
def test_trimmed_and_dropped_audio_is_counted_as_such(
    tmp_path: Path, policy: str, windows: list[int], seconds: float, texts: Texts
) -> None:
    """Trimmed audio counts with 30 s; dropped audio has no seconds and no windows."""
    found = texts(corpus_of(tmp_path, [70.0, 2.0]), policy)
    assert [found[utt_id].windows for utt_id in ("000", "001")] == windows
    assert sum(text.seconds for text in found.values()) == pytest.approx(seconds)


def test_random_weights_write_as_many_tokens_as_are_asked_for(tmp_path: Path) -> None:
    """The number holds for all parts of long audio together."""
    utterances = [dataclasses.replace(each, forced_tokens=20) for each in corpus_of(tmp_path, [2.0, 65.0])]
    found = texts_of_pipeline(utterances)
    assert found["000"].tokens == 20
    assert found["001"].tokens == pytest.approx(20, abs=1)


@both_engines
@pytest.mark.parametrize("damage", ["corrupt", "removed"])
def test_a_reader_that_fails_ends_the_pass_with_the_files_name(tmp_path: Path, damage: str, texts: Texts) -> None:
    """A file that cannot be decoded in the timed region is named in the error, and no reader thread is left."""
    utterances = corpus_of(tmp_path, [0.5] * 50)
    broken = tmp_path / "030.wav"
    broken.write_bytes(b"RIFF nonsense") if damage == "corrupt" else broken.unlink()
    with pytest.raises(AudioError, match=r"030\.wav"):
        texts(utterances)
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_a_model_that_dies_is_reported(tmp_path: Path) -> None:
    """Its error is raised, and nothing hangs."""

    class DyingModel(FakeModel):
        def step(self) -> Sequence[WindowOutput]:
            raise EngineError("The engine died while it worked: out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        list(feed(DyingModel(), corpus_of(tmp_path, [0.5] * 9), PLAN))
