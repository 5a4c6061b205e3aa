"""transformers: batches through `generate`, as the Open ASR Leaderboard runs Whisper, with SDPA and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput


class TransformersWhisper(BatchEngine):
    """On a GPU with a static KV cache, for which `generate` compiles the decoder (`enforce_eager` disables both), and
    with features computed there.

    Disabled: suppressed tokens.  A batch ends with its longest transcript, so with random weights it generates as many
    tokens as its longest window needs, and counts the tokens that each window needs.
    """

    package = "transformers"

    def load(self) -> str:
        import torch
        from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, GenerationConfig, WhisperProcessor, logging

        logging.set_verbosity_error()
        path, dtype = self.settings.checkpoint, getattr(torch, self.settings.dtype)
        if self.settings.config.random_weights:
            torch.manual_seed(self.settings.config.seed)
            config = AutoConfig.from_pretrained(path)
            model = AutoModelForSpeechSeq2Seq.from_config(config, dtype=dtype, attn_implementation="sdpa")
            model.generation_config = GenerationConfig.from_pretrained(path)
        else:
            model = AutoModelForSpeechSeq2Seq.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
        model.generation_config.suppress_tokens = None
        model.generation_config.begin_suppress_tokens = None
        self._model, self._processor = model.to(self.device).eval(), WhisperProcessor.from_pretrained(path)
        self._static = self.device == "cuda" and not self.settings.enforce_eager
        if self._static:  # allocates the largest cache first, because a larger one would be compiled again
            silence = [np.zeros(SAMPLE_RATE, np.float32)] * self.settings.batch_size
            self._generate(silence, MAX_OUTPUT_TOKENS)
        return str(model.dtype).removeprefix("torch.")

    def transcribe_batch(self, windows: Sequence[Window]) -> list[WindowOutput]:
        audio = [window.audio for window in windows]
        if self._static:  # a batch of another size would be compiled again
            audio += audio[-1:] * (self.settings.batch_size - len(audio))
        ids = self._generate(audio, max((window.forced_tokens or 0 for window in windows), default=0))[: len(windows)]
        texts = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [
            WindowOutput(window, text.strip(), window.forced_tokens or self._count(each))
            for window, text, each in zip(windows, texts, ids, strict=True)
        ]

    def _generate(self, audio: list[Any], tokens: int) -> Any:
        """Token ids without the prompt; exactly `tokens` per window, or (0) until each transcript ends."""
        import torch

        extractor, prompt = self._processor.feature_extractor, list(self.settings.prompt_token_ids)
        found = extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=self.device)
        ids = self._model.generate(
            found.input_features.to(self.device, self._model.dtype),
            decoder_input_ids=torch.tensor([prompt] * len(audio), device=self.device),
            do_sample=False,
            min_new_tokens=tokens or None,
            max_new_tokens=tokens or MAX_OUTPUT_TOKENS,
            **({"cache_implementation": "static"} if self._static else {}),
        )
        return ids[:, len(prompt) :].cpu() if ids[0, : len(prompt)].tolist() == prompt else ids.cpu()

    def _count(self, ids: Any) -> int:
        """Number of tokens of one transcript, with the end of text."""
        ended = (ids == self._processor.tokenizer.eos_token_id).nonzero()
        return int(ended[0, 0]) + 1 if len(ended) else len(ids)
