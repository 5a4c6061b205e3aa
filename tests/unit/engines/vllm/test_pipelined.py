"""A window whose transcript is a repetition loop with thinned padding is transcribed again."""

from __future__ import annotations

import contextlib
import itertools
import time
import types
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoints import random_weights
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import DEMO, Utterance
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.vllm import pipelined
from whisperbench.engines.vllm.pipelined import VllmPipelined
from whisperbench.engines.watchdog import Heartbeat
from whisperbench.engines.windows import UtteranceInProgress, Window, WindowOutput
from whisperbench.measure.timing import run_timed_passes

LOOP = "and then " + "he said to me " * 30


class Engine:
    """A fake of vLLM's engine with a fixed transcript for each window; one request per step."""

    def __init__(self, texts: dict[str, str], windows: dict[str, Window]) -> None:
        self.texts, self.windows, self.waiting = texts, windows, list[str]()

    def add_request(self, request: str, _prepared: object, _sampling: object) -> None:
        self.waiting.append(request)

    def step(self) -> list[Any]:
        request = self.waiting.pop(0)
        window = self.windows[request]
        text = self.texts[f"{window.utt_id}:{window.part}{':again' if window.is_retry else ''}"]
        said = types.SimpleNamespace(text=text, token_ids=text.split())
        return [types.SimpleNamespace(request_id=request, finished=True, outputs=[said])]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return random_weights("tiny.en", tmp_path_factory.mktemp("checkpoint"))


def model_that_says(
    texts: dict[str, str], stride: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> VllmPipelined:
    """The pipelined engine without vLLM's processes; its inputs are only the flag `all_positions`."""
    monkeypatch.setattr(pipelined, "sampling", lambda tokens: tokens)
    model = VllmPipelined.__new__(VllmPipelined)
    config = BenchmarkConfig(padding_stride=stride)
    model.settings = engine_settings(config, checkpoint, Hardware("a CPU"))
    model._in_flight, model._numbers = {}, itertools.count()
    model.llm = types.SimpleNamespace(llm_engine=Engine(texts, model._in_flight))
    model._renderer = lambda _key, _audio, *, all_positions: all_positions  # type: ignore[assignment]
    monkeypatch.setattr(model, "alive", contextlib.nullcontext)
    return model


def transcribe(model: VllmPipelined, tokens: int | None = None) -> tuple[Any, int]:
    """The transcription of one utterance of two windows, and the number of steps."""
    windows = [Window("3", part, np.zeros(16_000 * 10, np.float32), tokens) for part in range(2)]
    clip = UtteranceInProgress("3", windows)
    for window in windows:
        model.submit(window, model.prepare(window))
    steps, text = 0, None
    while model.in_flight:
        steps += 1
        for output in model.step():
            text = clip.finish(output)
    return text, steps


def test_a_loop_is_run_again_with_all_positions(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second transcript is used, and the retry is counted."""
    model = model_that_says(
        {"3:0": LOOP, "3:1": "well done", "3:0:again": "and then he said it"}, 16, checkpoint, monkeypatch
    )
    text, steps = transcribe(model)
    assert steps == 3
    assert (text.hypothesis, text.retried_windows, text.repetition_loops) == ("and then he said it well done", 1, 0)


def test_a_loop_that_stays_one_is_run_again_once(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop in the second transcript is used and counted."""
    model = model_that_says({"3:0": "yes", "3:1": LOOP, "3:1:again": LOOP}, 16, checkpoint, monkeypatch)
    text, steps = transcribe(model)
    assert steps == 3
    assert (text.retried_windows, text.repetition_loops) == (1, 1)


def test_with_all_positions_a_loop_is_counted_alone(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without thinned padding there is no retry."""
    text, steps = transcribe(model_that_says({"3:0": "yes", "3:1": LOOP}, 1, checkpoint, monkeypatch))
    assert steps == 2
    assert (text.retried_windows, text.repetition_loops) == (0, 1)


def test_a_rerun_is_counted_in_the_timed_region(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall time contains both runs of the window, and the pass counts the retry."""
    model = model_that_says({"a:0": LOOP, "a:0:again": "well done", "b:0": "yes"}, 16, checkpoint, monkeypatch)
    model.heartbeat, model._pids = Heartbeat(), set()
    step = model.step

    def slowly() -> list[WindowOutput]:
        time.sleep(0.2)
        return step()

    monkeypatch.setattr(model, "step", slowly)
    utterances = [
        Utterance(utt_id=name, audio=DEMO / "8455-210777-0068.flac", reference="well done", speaker=None)
        for name in "ab"
    ]
    measured = run_timed_passes(model, utterances, repeats=1, warmup=0, hardware=Hardware("a CPU")).passes[0]
    assert [result.hypothesis for result in measured.results] == ["well done", "yes"]
    assert (measured.retried_windows, measured.repetition_loops) == (1, 0)
    assert measured.wall_seconds > 3 * 0.2


def test_random_weights_are_not_run_again(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transcripts of random weights have no meaning, and their length is forced."""
    text, steps = transcribe(model_that_says({"3:0": LOOP, "3:1": LOOP}, 16, checkpoint, monkeypatch), tokens=60)
    assert steps == 2
    assert (text.retried_windows, text.repetition_loops) == (0, 0)
