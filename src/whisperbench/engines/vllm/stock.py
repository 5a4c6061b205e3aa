"""vLLM as its documentation shows it, and as the published script used it: everything decoded on one thread, then one
call of `LLM.generate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from whisperbench.engines.base import Clip, Text
from whisperbench.engines.vllm.engine import VllmEngine, sampling, window_text
from whisperbench.engines.windows import UtteranceInProgress, Window, clip_of


class VllmStock(VllmEngine):
    """An `Engine`; it tells no latencies, since `LLM.generate` hands everything out at its end.

    Raises:
        EngineError: vLLM does not start.
    """

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        in_work: dict[int, UtteranceInProgress] = {}
        windows: list[Window] = []
        for clip in clips:
            found = UtteranceInProgress.read(clip, self.settings.config.long_audio)
            windows.extend(found.windows)
            if found.windows:
                in_work[clip.index] = found
            else:
                yield found.text()  # dropped: the model gets nothing of it
        for window, result in zip(windows, self._generate(windows), strict=True):
            if (text := in_work[clip_of(window.key)].finish(window_text(window.key, result))) is not None:
                yield text

    def _generate(self, windows: list[Window]) -> list[Any]:
        from whisperbench.engines.vllm.inputs import stock_prompt

        prompts = [stock_prompt(window.audio, self.settings.prompt_token_ids) for window in windows]
        with self.alive():
            results: list[Any] = self.llm.generate(
                prompts, [sampling(window.tokens) for window in windows], use_tqdm=False
            )
        return results
