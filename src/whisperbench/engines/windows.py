"""Split an utterance into windows of at most 30 s, Whisper's input, and join their outputs to one transcription."""

from __future__ import annotations

import dataclasses

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES, AnySamples, load_audio, load_audio_16
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.repetition import is_repetition_loop

MAX_OUTPUT_TOKENS = 224
"""Maximum number of tokens per window, in all engines: half of Whisper's text context, as in whisper/decoding.py."""

SEARCH_SAMPLES = 10 * SAMPLE_RATE  # a window is cut in its last 10 s, because read speech pauses every few seconds
PAUSE_SAMPLES = SAMPLE_RATE // 5  # 200 ms: longer than the closure of a consonant
STEP_SAMPLES = SAMPLE_RATE // 100
MIN_SAMPLES = SAMPLE_RATE  # minimum length of a part, because Whisper hallucinates on shorter audio


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Part number `part` of an utterance."""

    utt_id: str
    part: int
    audio: AnySamples  # at most 30 s at 16 kHz, shape (n,), float32; int16 if the model accepts that
    forced_tokens: int | None = None  # generate exactly that many tokens (random weights)
    is_retry: bool = False  # with all positions, because the transcript with thinned padding was a repetition loop


@dataclasses.dataclass(frozen=True, slots=True)
class WindowOutput:
    """The transcript of one window and its number of tokens."""

    window: Window
    text: str
    tokens: int

    @property
    def is_repetition_loop(self) -> bool:
        """Whether the transcript is a repetition loop; false if the number of tokens is forced."""
        seconds = len(self.window.audio) / SAMPLE_RATE
        return self.window.forced_tokens is None and is_repetition_loop(self.text, self.tokens, seconds)


@dataclasses.dataclass(slots=True)
class UtteranceInProgress:
    """An utterance whose windows are being transcribed; `started` is when the first window was submitted."""

    utt_id: str
    windows: list[Window]
    started: float | None = None
    outputs: dict[int, WindowOutput] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, utterance: Utterance, long_audio: str, *, in_16_bits: bool = False) -> UtteranceInProgress:
        """Read the file of an utterance and split it into windows; long audio that is dropped has none.

        Raises:
            AudioError: the file cannot be decoded.
        """
        parts = split(load_audio_16(utterance.audio) if in_16_bits else load_audio(utterance.audio), long_audio)
        samples = sum(len(part) for part in parts)
        tokens: list[int | None] = [None] * len(parts)
        if utterance.forced_tokens is not None:
            tokens = [max(1, round(utterance.forced_tokens * len(part) / max(samples, 1))) for part in parts]
        windows = [Window(utterance.utt_id, i, part, tokens[i]) for i, part in enumerate(parts)]
        return cls(utterance.utt_id, windows)

    def submitted(self, now: float) -> None:
        """Record the submission of a window."""
        self.started = self.started or now

    def finish(self, output: WindowOutput, now: float | None = None) -> Transcription | None:
        """Add the output of one window; return the transcription of the utterance after the last one.

        `now` is None if the engine does not measure latencies.
        """
        self.outputs[output.window.part] = output
        return self.transcription(now) if len(self.outputs) == len(self.windows) else None

    def transcription(self, now: float | None = None) -> Transcription:
        """Join the outputs of all windows in their order."""
        outputs = [self.outputs[window.part] for window in self.windows]
        return Transcription(
            utt_id=self.utt_id,
            hypothesis=" ".join(output.text for output in outputs if output.text),
            tokens=sum(output.tokens for output in outputs),
            seconds=sum(len(window.audio) for window in self.windows) / SAMPLE_RATE,
            windows=len(outputs),
            latency_seconds=None if now is None or self.started is None else now - self.started,
            repetition_loops=sum(output.is_repetition_loop for output in outputs),
            retried_windows=sum(output.window.is_retry for output in outputs),
        )


def split(audio: AnySamples, policy: str) -> list[AnySamples]:
    """Split audio into parts of at most 30 s, which are views of `audio`.

    Args:
        audio: samples at 16 kHz, shape (n,), float32 or int16.
        policy: for audio longer than 30 s: `split` it at quiet points without loss, `trim` it to the first 30 s,
            or `drop` it, which returns no parts.
    """
    if audio.size <= WINDOW_SAMPLES:
        return [audio]
    if policy == "drop":
        return []
    if policy == "trim":
        return [audio[:WINDOW_SAMPLES]]
    parts = []
    while audio.size > WINDOW_SAMPLES:
        cut = _quietest_point(audio)
        parts.append(audio[:cut])
        audio = audio[cut:]
    return [*parts, audio]


def _quietest_point(audio: AnySamples) -> int:
    """Index of the middle sample of the quietest 200 ms in the last 10 s of a window; of equals the last."""
    import librosa

    start, end = WINDOW_SAMPLES - SEARCH_SAMPLES, min(WINDOW_SAMPLES, audio.size - MIN_SAMPLES)
    searched = audio[start:end].astype(np.float32, copy=False)
    loudness = librosa.feature.rms(y=searched, frame_length=PAUSE_SAMPLES, hop_length=STEP_SAMPLES, center=False)[0]
    quietest: int = loudness.size - 1 - int(np.argmin(loudness[::-1]))
    return start + quietest * STEP_SAMPLES + PAUSE_SAMPLES // 2
