"""A clip becomes windows of at most 30 s, what Whisper takes at once; the outputs of its windows become one text."""

from __future__ import annotations

import dataclasses

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES, AnySamples, load_audio, load_audio_16
from whisperbench.engines.base import Clip, Text
from whisperbench.engines.repetition import repeats_itself

MAX_OUTPUT_TOKENS = 224
"""Half of Whisper's text context, for every engine: what openai/whisper writes at most for a window (decoding.py)."""

SEARCH_SAMPLES = 10 * SAMPLE_RATE  # a cut is sought in the last 10 s of a window: read speech pauses every few seconds
PAUSE_SAMPLES = SAMPLE_RATE // 5  # 200 ms: a pause between words, and not the closure of a consonant
STEP_SAMPLES = SAMPLE_RATE // 100
MIN_SAMPLES = SAMPLE_RATE  # Whisper invents words for a scrap of audio: no part is shorter than 1 s


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A part of a clip: at most 30 s of samples at 16 kHz, float32 unless the model was to be given 16 bits.

    `key` is `clip:part`.  `tokens` set: generate that many, whatever the model says (random weights).
    `again`: its text repeated itself with thinned padding, and it is run with all positions.
    """

    key: str
    audio: AnySamples
    tokens: int | None = None
    is_retry: bool = False

    @property
    def request(self) -> str:
        """What the model knows it by: the second time by another name, since it is encoded anew."""
        return f"{self.key}:again" if self.is_retry else self.key

    def repeats_itself(self, output: WindowOutput) -> bool:
        """Whether its text is one that cannot be; of a text whose length is given nobody knows."""
        return self.tokens is None and repeats_itself(output.text, output.tokens, len(self.audio) / SAMPLE_RATE)


@dataclasses.dataclass(frozen=True, slots=True)
class WindowOutput:
    """The text of one window, how many tokens it took, and whether the window was run once more for it."""

    key: str
    text: str
    tokens: int
    is_retry: bool = False


@dataclasses.dataclass(slots=True)
class UtteranceInProgress:
    """A clip whose windows are on their way through the model."""

    index: int
    windows: list[Window]
    started: float | None = None
    texts: dict[str, WindowOutput] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, clip: Clip, long_audio: str, *, in_16_bits: bool = False) -> UtteranceInProgress:
        """Read a clip's file and cut it into windows: none where long audio is dropped.

        Raises:
            AudioError: the file cannot be decoded.
        """
        parts = split(load_audio_16(clip.audio) if in_16_bits else load_audio(clip.audio), long_audio)
        samples = sum(len(part) for part in parts)
        tokens: list[int | None] = [None] * len(parts)
        if clip.tokens is not None:
            tokens = [max(1, round(clip.tokens * len(part) / max(samples, 1))) for part in parts]
        return cls(clip.index, [Window(f"{clip.index}:{i}", part, tokens[i]) for i, part in enumerate(parts)])

    def submitted(self, now: float) -> None:
        self.started = self.started or now

    def finish(self, output: WindowOutput, now: float | None = None) -> Text | None:
        """Take one window's text; the clip's when that was the last one.  `now` is None where nobody knows."""
        self.texts[output.key] = output
        return self.text(now) if len(self.texts) == len(self.windows) else None

    def text(self, now: float | None = None) -> Text:
        parts = [self.texts[window.key] for window in self.windows]
        return Text(
            index=self.index,
            text=" ".join(part.text for part in parts if part.text),
            tokens=sum(part.tokens for part in parts),
            audio_seconds=sum(len(window.audio) for window in self.windows) / SAMPLE_RATE,
            windows=len(parts),
            latency_seconds=None if now is None or self.started is None else now - self.started,
            repetition_loops=sum(map(Window.repeats_itself, self.windows, parts)),
            retried_windows=sum(part.is_retry for part in parts),
        )


def clip_of(key: str) -> int:
    """The index of the clip that a window belongs to."""
    return int(key.partition(":")[0])


def split(audio: AnySamples, policy: str) -> list[AnySamples]:
    """What the model is given of one utterance: parts of at most 30 s, views of `audio`.

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
