"""faster-whisper: CTranslate2 through `BatchedInferencePipeline`, the batched transcription of its README."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput
from whisperbench.files import build_directory_once, cache_directory

FILES = ("tokenizer.json", "preprocessor_config.json")


class FasterWhisper(BatchEngine):
    """The windows of a batch are joined to one recording, whose parts the pipeline transcribes as a batch.

    Disabled: voice activity detection, fallback temperatures, suppressed tokens and beam search.  All other options
    have the defaults of faster-whisper.
    """

    package = "faster-whisper"
    deviations = "pads features with zeros, where Whisper was trained with the features of silence"

    def load(self) -> str:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        model = WhisperModel(
            self.settings.ctranslate2 or str(self._converted()),
            device=self.device,
            compute_type=self.settings.dtype,
            cpu_threads=len(os.sched_getaffinity(0)),
            local_files_only=True,
        )
        self._pipeline = BatchedInferencePipeline(model)
        return str(model.model.compute_type)

    def transcribe_batch(self, windows: Sequence[Window]) -> list[WindowOutput]:
        ends = np.cumsum([len(window.audio) for window in windows])
        # The pipeline truncates times to whole samples; a quarter of a sample protects against rounding.
        times = [
            {"start": (end - len(window.audio) + 0.25) / SAMPLE_RATE, "end": (end + 0.25) / SAMPLE_RATE}
            for window, end in zip(windows, ends.tolist(), strict=True)
        ]
        found, _ = self._pipeline.transcribe(
            np.concatenate([window.audio for window in windows]),
            language=self.settings.config.language,
            beam_size=1,
            temperature=0.0,
            suppress_blank=False,
            suppress_tokens=[],
            without_timestamps=True,
            vad_filter=False,
            clip_timestamps=times,
            max_new_tokens=MAX_OUTPUT_TOKENS,
            batch_size=len(windows),
        )
        segments = list(found)
        return [
            WindowOutput(window, segment.text.strip(), min(len(segment.tokens) + 1, MAX_OUTPUT_TOKENS))
            for window, segment in zip(windows, segments, strict=True)  # without timestamps a part is one segment
        ]

    def _converted(self) -> Path:
        """The cached conversion of the checkpoint by CTranslate2's converter, as in the README of faster-whisper."""
        from ctranslate2.converters import TransformersConverter

        source = Path(self.settings.checkpoint)

        def convert(target: Path) -> None:
            files = [name for name in FILES if (source / name).is_file()]
            converter = TransformersConverter(str(source), copy_files=files, load_as_float16=True)
            converter.convert(str(target), quantization="float16", force=True)

        return build_directory_once(cache_directory() / "ctranslate2" / str(self.settings.revision), convert)
