"""Decoding of the whole corpus before the measurement, for the lengths of utterances and one digest.

The result is cached on disk until the files, their transcripts or the decoding libraries change, so that a corpus is
decoded once for all runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from whisperbench import files
from whisperbench.corpus.audio import SAMPLE_RATE, AudioSource, JoinedAudio
from whisperbench.corpus.corpus import Corpus, Utterance
from whisperbench.corpus.librispeech import RowAudio
from whisperbench.corpus.verification import ROUNDING_SECONDS, verified_audio
from whisperbench.errors import CorpusError, WhisperbenchError
from whisperbench.files import FileState, changed_files, file_state, write_atomically
from whisperbench.util import installed_version

DECODERS = ("soundfile", "av", "miniaudio", "soxr", "numpy")
SCHEMA = 5  # of the cached files; increased when `verification` changes
READ_BYTES = 1 << 20

_Found = tuple[list[float], list[str], str]
"""The cached result of decoding: one length per utterance, the ids of silent ones, and the digest."""


def inspect_corpus(
    corpus: Corpus, workers: int, progress: Callable[[], object] = lambda: None, cache_dir: Path | None = None
) -> Corpus:
    """The corpus with the length of each utterance and its digest; `workers` threads decode and verify every file.

    The digest covers ids, references and decoded samples, in order.  It does not depend on speakers, paths, or the
    choice of a lossless file format.  `progress` is called after each utterance.

    The result for an unchanged corpus is read from `cache_dir`.  The audio files are read even then, so that the page
    cache of the operating system holds them in the timed region, as it does after decoding.

    Raises:
        AudioError: a file cannot be decoded or is incomplete; the message names the first in the order of the corpus.
        CorpusError: a manifest states another length.
        WhisperbenchError: a file changed meanwhile.
    """
    states = dict[Path, FileState]()
    for path in dict.fromkeys(path for each in corpus.utterances for path in _files(each.audio)):
        with contextlib.suppress(OSError):  # decoding reports a missing file
            states[path] = file_state(path)
    cached = cache_dir / "inspected" / f"{_cache_key(corpus, states)}.json" if cache_dir else None
    known = _read_cache(cached) if cached else None
    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        if known:
            for _ in pool.map(_read_file, corpus.utterances):
                progress()
        found = known or _decode_all(corpus.utterances, pool, progress)
    files.require_unchanged(states, "files with audio")
    if cached and not known:
        with contextlib.suppress(OSError):  # without the cache, the next run takes some seconds longer
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cached, [found, _checksum(found)])
    seconds, silent, digest = found
    pairs = zip(corpus.utterances, seconds, strict=True)
    utterances = tuple(replace(each, seconds=length) for each, length in pairs)
    return replace(corpus, utterances=utterances, digest=digest, silent=tuple(silent), files=states)


def require_unchanged(corpus: Corpus) -> None:
    """Require that the files of an inspected corpus have the content that was inspected.

    Files are decoded again if only their attributes changed, for example by `chmod` or by a hard link of a backup.

    Raises:
        WhisperbenchError: files were changed or replaced; the message names some of them.
    """
    changed = changed_files(corpus.files)
    try:
        same_size_and_time = all(file_state(path)[:2] == corpus.files[path][:2] for path in changed)
        if changed and same_size_and_time and inspect_corpus(corpus, os.cpu_count() or 1).digest == corpus.digest:
            return
    except (OSError, WhisperbenchError):
        pass  # the files are named below
    files.require_unchanged(corpus.files, "files with audio")


def _decode_all(utterances: Sequence[Utterance], pool: ThreadPoolExecutor, progress: Callable[[], object]) -> _Found:
    seconds, silent, digest = list[float](), list[str](), hashlib.sha256()
    for utterance, (length, is_silent, content) in zip(utterances, pool.map(_decode, utterances), strict=True):
        stated = utterance.seconds
        if stated is not None and not abs(stated - length) <= ROUNDING_SECONDS:
            raise CorpusError(
                f"{utterance.utt_id} lasts {length:.2f} s, but its entry states {stated:g} s (duration, or end minus "
                "start). Only whole files are transcribed. Write each part to a separate file, or remove the field."
            )
        digest.update(json.dumps([utterance.utt_id, utterance.reference, content]).encode() + b"\n")
        silent += [utterance.utt_id] if is_silent else []
        seconds.append(length)
        progress()
    return seconds, silent, digest.hexdigest()[:32]


def _read_file(utterance: Utterance) -> None:
    with utterance.audio.open("rb") as file:
        while file.read(READ_BYTES):
            pass


def _decode(utterance: Utterance) -> tuple[float, bool, str]:
    audio, is_silent = verified_audio(utterance.audio)
    content = hashlib.sha256(audio.astype("<f4", copy=False).tobytes()).hexdigest()
    return audio.size / SAMPLE_RATE, is_silent, content


def _cache_key(corpus: Corpus, states: Mapping[Path, FileState]) -> str:
    """Digest, 32 hexadecimal digits, of everything that the result depends on."""
    versions = [installed_version(name) for name in DECODERS]
    found = [[str(path), *state] for path, state in states.items()]
    rows = [[each.utt_id, each.reference, each.seconds, repr(each.audio)] for each in corpus.utterances]
    return hashlib.sha256(json.dumps([SCHEMA, versions, found, rows]).encode()).hexdigest()[:32]


def _files(source: AudioSource) -> Iterator[Path]:
    """The files that hold the audio of an utterance; in a parquet data set, the id identifies the row."""
    if isinstance(source, JoinedAudio):
        for part in source.parts:
            yield from _files(part)
    elif isinstance(source, RowAudio):
        yield from source.files
    elif isinstance(source, Path):
        yield source


def _checksum(found: _Found) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _read_cache(path: Path) -> _Found | None:
    """The cached result; None if there is none, or if it was altered."""
    try:
        (seconds, silent, digest), checksum = json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    found = seconds, silent, digest
    return found if checksum == _checksum(found) else None
