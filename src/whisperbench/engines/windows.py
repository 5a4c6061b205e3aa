"""An utterance becomes windows of at most 30 s, Whisper's input; their outputs become one transcription."""

from __future__ import annotations

import dataclasses

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES, AnySamples, load_audio, load_audio_16
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.repetition import repeats_itself

MAX_OUTPUT_TOKENS = 224
"""Half of Whisper's text context, for every engine: what openai/whisper writes at most for a window (decoding.py)."""

SEARCH_SAMPLES = 10 * SAMPLE_RATE  # a cut is sought in the last 10 s of a window: read speech pauses every few seconds
PAUSE_SAMPLES = SAMPLE_RATE // 5  # 200 ms: a pause between words, and not the closure of a consonant
STEP_SAMPLES = SAMPLE_RATE // 100
MIN_SAMPLES = SAMPLE_RATE  # Whisper invents words for a scrap of audio: no part is shorter than 1 s


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of an utterance: at most 30 s of samples at 16 kHz, float32, or int16 where the model takes that.

    `forced_tokens` set: generate exactly that many (random weights).  `is_retry`: its transcript was a repetition loop
    with thinned padding, and it is run with all positions.
    """

    utt_id: str
    part: int
    audio: AnySamples
    forced_tokens: int | None = None
    is_retry: bool = False

    def repeats_itself(self, output: WindowOutput) -> bool:
        """Whether its transcript is a repetition loop; never where the number of tokens is forced."""
        return self.forced_tokens is None and repeats_itself(output.text, output.tokens, len(self.audio) / SAMPLE_RATE)


@dataclasses.dataclass(frozen=True, slots=True)
class WindowOutput:
    """The transcript of one window and its number of tokens."""

    window: Window
    text: str
    tokens: int


@dataclasses.dataclass(slots=True)
class UtteranceInProgress:
    """An utterance whose windows are on their way through the model."""

    utt_id: str
    windows: list[Window]
    started: float | None = None
    outputs: dict[int, WindowOutput] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, utterance: Utterance, long_audio: str, *, in_16_bits: bool = False) -> UtteranceInProgress:
        """Read an utterance's file and cut it into windows: none where long audio is dropped.

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
        self.started = self.started or now

    def finish(self, output: WindowOutput, now: float | None = None) -> Transcription | None:
        """Take one window's output; the utterance's transcription when that was the last one.

        `now` is None where the moment is not known.
        """
        self.outputs[output.window.part] = output
        return self.transcription(now) if len(self.outputs) == len(self.windows) else None

    def transcription(self, now: float | None = None) -> Transcription:
        outputs = [self.outputs[window.part] for window in self.windows]
        return Transcription(
            utt_id=self.utt_id,
            hypothesis=" ".join(output.text for output in outputs if output.text),
            tokens=sum(output.tokens for output in outputs),
            seconds=sum(len(window.audio) for window in self.windows) / SAMPLE_RATE,
            windows=len(outputs),
            latency_seconds=None if now is None or self.started is None else now - self.started,
            repetition_loops=sum(map(Window.repeats_itself, self.windows, outputs)),
            retried_windows=sum(output.window.is_retry for output in outputs),
        )


def split(audio: AnySamples, policy: str) -> list[AnySamples]:
    """The parts of an utterance that the model is given: at most 30 s each, views of `audio`.

    Args:
        audio: samples at 16 kHz, shape (n,), float32 or int16.
        policy: `split` at quiet points (the parts joined are the audio), `trim` to the first 30 s,
            or `drop`, which gives no part at all for audio longer than 30 s.
    """
    if policy not in ("split", "trim", "drop"):
        raise ValueError(f"policy={policy!r}: expected split, trim or drop")
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
    """The sample in the middle of the quietest 200 ms of a window's last 10 s; of equals, the last."""
    import librosa

    end = min(WINDOW_SAMPLES, audio.size - MIN_SAMPLES)
    start = WINDOW_SAMPLES - SEARCH_SAMPLES
    searched = audio[start:end].astype(np.float32, copy=False)
    loudness = librosa.feature.rms(
        y=searched,
        frame_length=PAUSE_SAMPLES,
        hop_length=STEP_SAMPLES,
        center=False,
    )[0]
    quietest: int = loudness.size - 1 - int(np.argmin(loudness[::-1]))
    return start + quietest * STEP_SAMPLES + PAUSE_SAMPLES // 2
