"""Every file of a corpus decoded once, before the clock starts: lengths, and one digest of it all.

What was found is kept on disk and holds as long as the files, their transcripts and the decoding libraries stay
as they are: the runs of a sweep, and repeats on one machine, look at a corpus once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from whisperbench.corpus.audio import SAMPLE_RATE, AudioSource, JoinedAudio, load_audio
from whisperbench.corpus.corpus import Corpus, Utterance
from whisperbench.corpus.librispeech import RowAudio
from whisperbench.files import write_atomically
from whisperbench.util import installed_version

DECODERS = ("soundfile", "av", "soxr", "numpy")
SCHEMA = 1  # of what is kept
READ_BYTES = 1 << 20


def inspect_corpus(
    corpus: Corpus, workers: int, progress: Callable[[int], None] | None = None, cache_dir: Path | None = None
) -> Corpus:
    """The corpus with the length of each utterance and its digest: every file is decoded once, on `workers` threads.

    The digest covers ids, references and decoded samples, in order; it does not depend on file formats that lose
    nothing, on paths or on speakers.  `progress` is called with the number of utterances done.  With `cache_dir`
    nothing is decoded that was before and has not changed since; it is read all the same, so that the clock meets
    files that the system has in memory, whether they were known or not.

    Raises:
        AudioError: the first file, in the corpus's order, that cannot be decoded.
    """
    kept = cache_dir and (key := _key(corpus)) and cache_dir / "inspected" / f"{key}.json"
    known = _read_inspected(kept, corpus) if kept else None
    seconds: list[float] = []
    digest = hashlib.sha256()
    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        if known:
            for done, _ in enumerate(pool.map(_touch, corpus.utterances), 1):
                _tell(progress, done)
            return known
        for utterance, (length, content) in zip(corpus.utterances, pool.map(_decode, corpus.utterances), strict=True):
            digest.update(json.dumps([utterance.utt_id, utterance.reference, content]).encode() + b"\n")
            seconds.append(length)
            _tell(progress, len(seconds))
    found = digest.hexdigest()[:32]
    if kept:
        _write_inspected(kept, seconds, found)
    return _inspected(corpus, seconds, found)


def _inspected(corpus: Corpus, seconds: Sequence[float], digest: str) -> Corpus:
    pairs = zip(corpus.utterances, seconds, strict=True)
    return replace(corpus, utterances=tuple(replace(each, seconds=length) for each, length in pairs), digest=digest)


def _tell(progress: Callable[[int], None] | None, done: int) -> None:
    if progress is not None:
        progress(done)


def _touch(utterance: Utterance) -> None:
    with utterance.audio.open("rb") as file:
        while file.read(READ_BYTES):
            pass


def _decode(utterance: Utterance) -> tuple[float, str]:
    audio = load_audio(utterance.audio)
    return audio.size / SAMPLE_RATE, hashlib.sha256(audio.astype("<f4", copy=False).tobytes()).hexdigest()


def _key(corpus: Corpus) -> str | None:
    """What the facts depend on, as 32 hexadecimal digits; None where a file is not there to be asked."""
    versions = [installed_version(name) or "" for name in DECODERS]  # one that is not there decodes nothing
    digest = hashlib.sha256(json.dumps([SCHEMA, *versions]).encode())
    state_of = functools.cache(_state)  # the rows of a parquet data set share its files: each is asked once
    try:
        for utterance in corpus.utterances:
            files, row = _place(utterance.audio)
            digest.update(json.dumps([utterance.utt_id, utterance.reference, state_of(files), row]).encode() + b"\n")
    except OSError:
        return None
    return digest.hexdigest()[:32]


def _place(source: AudioSource) -> tuple[tuple[Path, ...], int]:
    """The files that hold an utterance, and its (first) row in them (0 in a file of its own)."""
    if isinstance(source, JoinedAudio):
        places = [_place(part) for part in source.parts]
        return tuple(file for files, _ in places for file in files), places[0][1]
    if isinstance(source, RowAudio):
        return source.files, source.index
    if not isinstance(source, Path):
        raise OSError(f"{source.name} has no file to be asked for its state")
    return (source,), 0


def _state(files: tuple[Path, ...]) -> str:
    """Which files, and the sizes and times that a change of their content would change; as a digest."""
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
    # A home that cannot be written costs the next run some seconds, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, {"seconds": seconds, "digest": digest})
