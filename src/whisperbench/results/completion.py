"""A measurement whose clock had stopped, but whose result could not be written: completed from its journal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from whisperbench.errors import BundleError, ConfigError
from whisperbench.measure.clock import Measurement, Pass, Transcript
from whisperbench.measure.score import Score, score
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.results.bundle import ARTIFACTS, PARTIAL, Bundle, refuse_links
from whisperbench.results.contents import RunContents, run_contents
from whisperbench.results.journal import TRANSCRIPTS, read_partial, read_stopped, seal
from whisperbench.results.transcripts import TABLE, transcript_table


def complete(directory: Path) -> Bundle:
    """Score what was transcribed and write the result, as the measurement itself would have; without samples, since
    the audio may have changed or be elsewhere.

    Raises:
        BundleError: the clock had not stopped, transcripts are missing, it is being measured, or the disk refuses.
    """
    if not directory.name.endswith(PARTIAL):
        raise BundleError(f"{directory} is no measurement that was cut off.")
    with _locked(directory):
        partial, stopped = read_partial(directory), read_stopped(directory)
        found = defaultdict(list)  # of several rounds an utterance has several
        for repeat, transcript in partial.transcripts:
            found[repeat, transcript.utt_id].append(transcript)
        wanted = Counter((repeat, utt_id) for repeat in range(len(stopped.passes)) for utt_id in stopped.utt_ids)
        if missing := sum(max(0, count - len(found[each])) for each, count in wanted.items()):
            raise BundleError(f"{directory} lacks {missing} of {wanted.total()} transcripts.")
        try:
            config = BenchmarkConfig.from_params(partial.params)
        except ConfigError as error:
            raise BundleError(f"{directory} holds an option that is not allowed: {error}") from error
        passes = []
        for repeat, each in enumerate(stopped.passes):
            passes.append(
                Pass(
                    each.wall_seconds,
                    each.cpu_seconds,
                    tuple(found[repeat, utt_id].pop(0) for utt_id in stopped.utt_ids),
                    each.gpu,
                    frozen_seconds=each.frozen_seconds,
                    rounds=each.rounds,
                    shared=each.fleet,
                )
            )
        measurement = Measurement(stopped.warmup_seconds, tuple(passes), stopped.alone_rates)
        transcripts = measurement.median.first_round
        silent = config.random_weights or any(each.reference is None for each in transcripts)
        scored = None if silent else score(transcripts, config.language, config.seed)
        times = {"started_ms": stopped.started_ms, "ended_ms": stopped.ended_ms}
        contents = run_contents(config, stopped.facts, measurement, scored, **times)
        try:
            (directory / ARTIFACTS).mkdir(exist_ok=True)
            refuse_links(directory / ARTIFACTS)
            return seal(
                directory, contents, stopped.origin, lambda into: write_texts(into, transcripts, scored, contents)
            )
        except OSError as error:
            raise BundleError(f"{directory}: the result cannot be written ({error.strerror or error}).") from error


def write_texts(
    directory: Path, transcripts: Sequence[Transcript], scored: Score | None, contents: RunContents
) -> None:
    """transcripts.json and summary.md."""
    table = transcript_table(transcripts, scored)
    (directory / TABLE).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    (directory / "summary.md").write_text(contents.description, encoding="utf-8")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Not what another process measures or completes."""
    try:
        descriptor = os.open(directory / TRANSCRIPTS, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"{directory} is no journal of a measurement ({error}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BundleError(f"{directory} is being measured by another process.") from error
    finally:
        os.close(descriptor)
