"""Decoding of the whole corpus before the measurement, for the lengths of utterances and one digest.

The result is cached on disk until the files, their transcripts or the decoding libraries change, so that a corpus is
decoded once for all runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
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
    """The corpus with the length of each utterance and its digest; `workers` threads decode every file.

    The digest covers ids, references and decoded samples, in order.  It does not depend on speakers, paths, or the
    choice of a lossless file format.  `progress` is called with the number of finished utterances.

    The result for an unchanged corpus is read from `cache_dir`.  The audio files are read even then, so that the page
    cache of the operating system holds them in the timed region, as it does after decoding.

    Raises:
        AudioError: a file cannot be decoded; the message names the first one in the order of the corpus.
    """
    key = _cache_key(corpus) if cache_dir else None
    cached = cache_dir / "inspected" / f"{key}.json" if cache_dir and key else None
    known = _read_cache(cached, corpus) if cached else None
    seconds: list[float] = []
    digest = hashlib.sha256()
    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        if known:
            for done, _ in enumerate(pool.map(_read_file, corpus.utterances), 1):
                progress(done)
            return known
        for utterance, (length, content) in zip(corpus.utterances, pool.map(_decode, corpus.utterances), strict=True):
            digest.update(json.dumps([utterance.utt_id, utterance.reference, content]).encode() + b"\n")
            seconds.append(length)
            progress(len(seconds))
    found = digest.hexdigest()[:32]
    if cached:
        with contextlib.suppress(OSError):  # without the cache, the next run takes some seconds longer
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cached, {"seconds": seconds, "digest": found})
    return _inspected(corpus, seconds, found)


def _inspected(corpus: Corpus, seconds: Sequence[float], digest: str) -> Corpus:
    pairs = zip(corpus.utterances, seconds, strict=True)
    return replace(corpus, utterances=tuple(replace(each, seconds=length) for each, length in pairs), digest=digest)


def _read_file(utterance: Utterance) -> None:
    with utterance.audio.open("rb") as file:
        while file.read(READ_BYTES):
            pass


def _decode(utterance: Utterance) -> tuple[float, str]:
    audio = load_audio(utterance.audio)
    return audio.size / SAMPLE_RATE, hashlib.sha256(audio.astype("<f4", copy=False).tobytes()).hexdigest()


def _cache_key(corpus: Corpus) -> str | None:
    """Digest, 32 hexadecimal digits, of everything that the result depends on; None if a file is missing."""
    versions = [installed_version(name) for name in DECODERS]
    try:
        files = [list(_files(utterance.audio)) for utterance in corpus.utterances]
        number = {path: index for index, path in enumerate(dict.fromkeys(itertools.chain(*files)))}
        states = [[str(path.resolve()), *_state(path)] for path in number]
    except OSError:
        return None
    pairs = zip(corpus.utterances, files, strict=True)
    rows = [[utterance.utt_id, utterance.reference, *map(number.get, paths)] for utterance, paths in pairs]
    return hashlib.sha256(json.dumps([SCHEMA, versions, states, rows]).encode()).hexdigest()[:32]


def _files(source: AudioSource) -> Iterator[Path]:
    """The files that hold the audio of an utterance; in a parquet data set, the id identifies the row."""
    if isinstance(source, JoinedAudio):
        for part in source.parts:
            yield from _files(part)
    elif isinstance(source, RowAudio):
        yield from source.files
    elif isinstance(source, Path):
        yield source
    else:
        raise OSError(f"{source.name} is not in a file")


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # at least one changes with the content


def _read_cache(path: Path, corpus: Corpus) -> Corpus | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _inspected(corpus, [float(length) for length in found["seconds"]], str(found["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
