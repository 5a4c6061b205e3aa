"""vLLM as its documentation shows it, and as the published script used it: everything decoded on one thread, then one
call of `LLM.generate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.vllm.engine import VllmEngine, sampling, window_text
from whisperbench.engines.windows import UtteranceInProgress, Window


class VllmStock(VllmEngine):
    """An `Engine` without latencies, since `LLM.generate` returns everything at its end.

    Raises:
        EngineError: vLLM does not start.
    """

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        in_progress: dict[str, UtteranceInProgress] = {}
        windows: list[Window] = []
        for utterance in utterances:
            found = UtteranceInProgress.read(utterance, self.settings.config.long_audio)
            windows.extend(found.windows)
            if found.windows:
                in_progress[found.utt_id] = found
            else:
                yield found.transcription()  # dropped: the model is given nothing of it
        for window, result in zip(windows, self._generate(windows), strict=True):
            if (finished := in_progress[window.utt_id].finish(window_text(window, result))) is not None:
                yield finished

    def _generate(self, windows: list[Window]) -> list[Any]:
        from whisperbench.engines.vllm.inputs import stock_prompt

        prompts = [stock_prompt(window.audio, self.settings.prompt_token_ids) for window in windows]
        with self.alive():
            results: list[Any] = self.llm.generate(
                prompts, [sampling(window.forced_tokens) for window in windows], use_tqdm=False
            )
        return results
