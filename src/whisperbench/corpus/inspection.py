"""Decoding of a whole corpus once, before the timed region: lengths, and one digest.

The result is cached on disk until the files, their transcripts or the decoding libraries change, so that the runs of a
sweep and repeated runs decode a corpus once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from whisperbench.corpus.audio import SAMPLE_RATE, AudioSource, JoinedAudio, load_audio
from whisperbench.corpus.corpus import Corpus, Utterance
from whisperbench.corpus.librispeech import RowAudio
from whisperbench.files import write_atomically
from whisperbench.util import installed_version

DECODERS = ("soundfile", "av", "soxr", "numpy")
SCHEMA = 2  # of the cached files
READ_BYTES = 1 << 20


def inspect_corpus(
    corpus: Corpus, workers: int, progress: Callable[[int], object] = lambda _done: None, cache_dir: Path | None = None
) -> Corpus:
    """The corpus with the length of each utterance and its digest: every file is decoded once, on `workers` threads.

    The digest covers ids, references and decoded samples, in order; it does not depend on lossless file formats, paths
    or speakers.  `progress` is called with the number of finished utterances.  With `cache_dir` the result for an
    unchanged corpus is read from there; its files are read nevertheless, so that the system has them in memory in the
    timed region in either case.

    Raises:
        AudioError: a file cannot be decoded; the first one in the order of the corpus.
    """
    kept = cache_dir and (key := _key(corpus)) and cache_dir / "inspected" / f"{key}.json"
    known = _read_inspected(kept, corpus) if kept else None
    seconds: list[float] = []
    digest = hashlib.sha256()
    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        if known:
            for done, _ in enumerate(pool.map(_touch, corpus.utterances), 1):
                progress(done)
            return known
        for utterance, (length, content) in zip(corpus.utterances, pool.map(_decode, corpus.utterances), strict=True):
            digest.update(json.dumps([utterance.utt_id, utterance.reference, content]).encode() + b"\n")
            seconds.append(length)
            progress(len(seconds))
    found = digest.hexdigest()[:32]
    if kept:
        _write_inspected(kept, seconds, found)
    return _inspected(corpus, seconds, found)


def _inspected(corpus: Corpus, seconds: Sequence[float], digest: str) -> Corpus:
    pairs = zip(corpus.utterances, seconds, strict=True)
    return replace(corpus, utterances=tuple(replace(each, seconds=length) for each, length in pairs), digest=digest)


def _touch(utterance: Utterance) -> None:
    with utterance.audio.open("rb") as file:
        while file.read(READ_BYTES):
            pass


def _decode(utterance: Utterance) -> tuple[float, str]:
    audio = load_audio(utterance.audio)
    return audio.size / SAMPLE_RATE, hashlib.sha256(audio.astype("<f4", copy=False).tobytes()).hexdigest()


def _key(corpus: Corpus) -> str | None:
    """Digest, 32 hexadecimal digits, of everything that the result depends on; None if a file is missing."""
    versions = [installed_version(name) or "" for name in DECODERS]
    digest = hashlib.sha256(json.dumps([SCHEMA, *versions]).encode())
    state_of = functools.cache(_state)  # the rows of a parquet data set share its files
    try:
        for utterance in corpus.utterances:
            state = state_of(tuple(_files(utterance.audio)))
            digest.update(json.dumps([utterance.utt_id, utterance.reference, state]).encode() + b"\n")
    except OSError:
        return None
    return digest.hexdigest()[:32]


def _files(source: AudioSource) -> Iterator[Path]:
    """The files with the audio of an utterance; in a parquet data set its id identifies the row."""
    if isinstance(source, JoinedAudio):
        for part in source.parts:
            yield from _files(part)
    elif isinstance(source, RowAudio):
        yield from source.files
    elif isinstance(source, Path):
        yield source
    else:
        raise OSError(f"{source.name} is not in a file")


def _state(files: tuple[Path, ...]) -> str:
    """Digest of paths, sizes and times, which change with the content of the files."""
    found = [(path.resolve(), path.stat()) for path in files]
    states = [[str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in found]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _read_inspected(path: Path, corpus: Corpus) -> Corpus | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _inspected(corpus, [float(length) for length in found["seconds"]], str(found["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_inspected(path: Path, seconds: Sequence[float], digest: str) -> None:
    with contextlib.suppress(OSError):  # without the cache, the next run takes some seconds longer
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, {"seconds": seconds, "digest": digest})
