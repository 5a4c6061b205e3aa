"""Packing of consecutive utterances of a chapter into windows of up to 30 s, as in MLPerf's speech benchmark.

As in its repackage_librispeech.py, utterances stay in order, are separated by half a second of silence, and start a new
window if they do not fit.  An utterance that is longer than a window is kept unchanged; MLPerf drops it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from whisperbench.corpus.audio import PAUSE_SECONDS, JoinedAudio
from whisperbench.corpus.corpus import LIBRISPEECH_ID, Corpus, Utterance
from whisperbench.errors import CorpusError


def pack_utterances(corpus: Corpus, pack_seconds: int | None, inspect: Callable[[Corpus], Corpus]) -> Corpus:
    """The inspected corpus, packed into windows of at most `pack_seconds` (None: not packed).

    Raises:
        CorpusError: an id is not of the form speaker-chapter-utterance.
        AudioError: a file cannot be decoded.
    """
    inspected = inspect(corpus)
    if not pack_seconds:
        return inspected
    windows = tuple(map(_joined, _windows(inspected.utterances, pack_seconds)))
    return inspect(Corpus(corpus.name, corpus.split, windows, corpus.source))


def _windows(utterances: Sequence[Utterance], max_seconds: int) -> Iterator[list[Utterance]]:
    for _, chapter in itertools.groupby(utterances, key=_chapter):
        window: list[Utterance] = []
        filled = 0.0
        for utterance in chapter:
            length = utterance.seconds or 0.0
            if window and filled + PAUSE_SECONDS + length > max_seconds:
                yield window
                window, filled = [], 0.0
            filled += length + (PAUSE_SECONDS if window else 0.0)
            window.append(utterance)
        yield window


def _chapter(utterance: Utterance) -> str:
    if not LIBRISPEECH_ID.fullmatch(utterance.utt_id):
        raise CorpusError(
            f"{utterance.utt_id!r} is not an id of LibriSpeech (speaker-chapter-utterance), and pack_seconds needs the "
            "chapter. Use pack_seconds=none."
        )
    return utterance.utt_id.rpartition("-")[0]


def _joined(window: Sequence[Utterance]) -> Utterance:
    first, last = window[0], window[-1]
    if first is last:
        return first
    return Utterance(
        utt_id=f"{first.utt_id}+{last.utt_id.rpartition('-')[2]}",
        audio=JoinedAudio(tuple(each.audio for each in window)),
        reference=None if first.reference is None else " ".join(each.reference or "" for each in window),
        speaker=first.speaker,
    )
