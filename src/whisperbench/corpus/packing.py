"""Consecutive utterances of one chapter joined to windows of up to 30 s, as in MLPerf's speech benchmark.

As in its repackage_librispeech.py: utterances in order, half a second of silence between two, and a new window where
the next one would not fit.  An utterance that is longer than a window stays alone; MLPerf leaves it out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from whisperbench.corpus.audio import PAUSE_SECONDS, JoinedAudio
from whisperbench.corpus.corpus import LIBRISPEECH_ID, Corpus, Utterance
from whisperbench.corpus.inspection import CorpusFacts
from whisperbench.errors import CorpusError


def pack_utterances(
    corpus: Corpus, pack_seconds: int | None, inspect: Callable[[Corpus], CorpusFacts]
) -> tuple[Corpus, CorpusFacts]:
    """A corpus, joined to windows of at most `pack_seconds` (None: unchanged), and its lengths and digest.

    Raises:
        CorpusError: an id does not name a chapter.
        AudioError: a file cannot be decoded.
    """
    facts = inspect(corpus)
    if not pack_seconds:
        return corpus, facts
    windows = tuple(map(_joined, _windows(corpus.utterances, facts.seconds, pack_seconds)))
    joined = Corpus(corpus.name, corpus.split, windows, corpus.source)
    return joined, inspect(joined)


def _windows(utterances: Sequence[Utterance], seconds: Sequence[float], max_seconds: int) -> Iterator[list[Utterance]]:
    pairs = zip(utterances, seconds, strict=True)
    for _, chapter in itertools.groupby(pairs, key=lambda pair: _chapter(pair[0])):
        window: list[Utterance] = []
        filled = 0.0
        for utterance, length in chapter:
            if window and filled + PAUSE_SECONDS + length > max_seconds:
                yield window
                window, filled = [], 0.0
            filled += length + (PAUSE_SECONDS if window else 0.0)
            window.append(utterance)
        yield window


def _chapter(utterance: Utterance) -> str:
    if not LIBRISPEECH_ID.fullmatch(utterance.id):
        raise CorpusError(
            f"pack_seconds joins utterances of one chapter, and {utterance.id!r} is not an id of LibriSpeech "
            "(speaker-chapter-utterance). Use pack_seconds=none."
        )
    return utterance.id.rpartition("-")[0]


def _joined(window: Sequence[Utterance]) -> Utterance:
    first, last = window[0], window[-1]
    if first is last:
        return first
    references = [each.reference for each in window if each.reference is not None]
    return Utterance(
        id=f"{first.id}+{last.id.rpartition('-')[2]}",
        audio=JoinedAudio(tuple(each.audio for each in window)),
        reference=" ".join(references) if len(references) == len(window) else None,
        speaker=first.speaker,
    )
