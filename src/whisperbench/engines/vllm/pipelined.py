"""vLLM fed with inputs that are rendered here: features in parallel, only where there is audio, and a queue kept full.

A stock `LLM.generate` computes log-mel features on one thread, for 30 s whatever a clip's length: about 70 requests/s
per process on any GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whisperbench.engines.base import Clip, Text
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.pipeline import PipelineLimits, feed, limit_heap_growth
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.vllm.engine import VllmEngine, capture_sizes, sampling, window_text
from whisperbench.engines.vllm.inputs import WindowRenderer
from whisperbench.engines.windows import Window, WindowOutput


class VllmPipelined(VllmEngine):
    """An `Engine`, and the `SteppedModel` that it feeds itself with.

    Raises:
        EngineError: vLLM does not start, or it renders Whisper's input in a way that is not known here.
    """

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        limit_heap_growth()
        self._in_flight: dict[str, Window] = {}
        super().__init__(settings, hardware, log)

    def llm_options(self) -> dict[str, Any]:
        from whisperbench.engines.vllm.model import Overrides

        options: dict[str, Any] = {"hf_overrides": Overrides(self.settings.config.padding_stride)}
        if not self.settings.enforce_eager:
            options["compilation_config"] = {
                "cudagraph_capture_sizes": capture_sizes(self.settings.config.max_num_seqs)
            }
        return options

    def started(self) -> None:
        self._renderer = WindowRenderer(self.llm, self.settings)

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        return feed(self, clips, PipelineLimits.of(self.settings))

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def prepare(self, window: Window) -> Any:
        return self._renderer(window.request, window.audio, all_positions=window.is_retry)

    def submit(self, window: Window, prepared: Any) -> None:
        with self.alive():
            self.llm.llm_engine.add_request(window.request, prepared, sampling(window.tokens))
        self._in_flight[window.request] = window

    def step(self) -> list[WindowOutput]:
        """What has finished; a text that repeats itself with thinned padding is not the window's last word."""
        with self.alive():
            finished = [result for result in self.llm.llm_engine.step() if result.finished]
        texts = []
        for result in finished:
            window = self._in_flight.pop(result.request_id)
            text = window_text(window.key, result)
            if self.settings.config.padding_stride > 1 and not window.is_retry and window.repeats_itself(text):
                again = dataclasses.replace(window, is_retry=True)
                self.submit(again, self.prepare(again))
            else:
                texts.append(dataclasses.replace(text, is_retry=window.is_retry))
        return texts
