"""engine=vllm: vLLM behind this project's input pipeline.

Engine inputs are rendered by several threads, and features are computed only for positions that the encoder keeps.
`LLM.generate` computes the features of 30 s for every utterance on one thread, which limits a process to about 70
requests/s on any GPU.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whisperbench.config.benchmark import FP8_ENCODER
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.pipeline import PipelineLimits, feed, limit_heap_growth
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.vllm.engine import VllmEngine, sampling, window_output
from whisperbench.engines.vllm.inputs import WindowRenderer
from whisperbench.engines.windows import Window, WindowOutput


class VllmPipelined(VllmEngine):
    """An `Engine` that is also the `SteppedModel` of its input pipeline.

    Raises:
        EngineError: vLLM does not start, or this version renders Whisper's input in an unsupported form.
    """

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        limit_heap_growth()
        self._in_flight: dict[str, Window] = {}  # by vLLM's request id
        self._numbers = itertools.count()
        super().__init__(settings, hardware, log)

    def llm_options(self) -> dict[str, Any]:
        from whisperbench.engines.vllm.model import Overrides

        return {"hf_overrides": Overrides(self.settings.stride, self.settings.config.quantization == FP8_ENCODER)}

    def on_started(self) -> None:
        self._renderer = WindowRenderer(self.llm, self.settings)

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        return feed(self, utterances, PipelineLimits.of(self.settings))

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def prepare(self, window: Window) -> Any:
        """Render the engine input; its key in vLLM's encoder cache is a new number, so every window is encoded."""
        return self._renderer(str(next(self._numbers)), window.audio, all_positions=window.is_retry)

    def submit(self, window: Window, prepared: Any) -> None:
        request = str(next(self._numbers))
        with self.alive():
            self.llm.llm_engine.add_request(request, prepared, sampling(window.forced_tokens))
        self._in_flight[request] = window

    def step(self) -> list[WindowOutput]:
        """Finished outputs; a window whose transcript is a repetition loop with thinned padding is submitted again."""
        with self.alive():
            finished = [result for result in self.llm.llm_engine.step() if result.finished]
        outputs = []
        for result in finished:
            window = self._in_flight.pop(result.request_id)
            output = window_output(window, result)
            if self.settings.stride > 1 and not window.is_retry and output.is_repetition_loop:
                retry = dataclasses.replace(window, is_retry=True)
                self.submit(retry, self.prepare(retry))
            else:
                outputs.append(output)
        return outputs
