"""Messages, progress and transcripts of a running measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.audio import corpus_of
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.preparation import prepare
from whisperbench.processes.signals import Interrupted
from whisperbench.progress import Listener
from whisperbench.results.bundle import Origin


class Noting(Listener):
    """Keeps sentences, the types of records, and the bars with their last counts."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.shown: list[object] = []
        self.bars: dict[str, str] = {}

    def info(self, sentence: str) -> None:
        self.sentences.append(sentence)

    @contextlib.contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
        done = itertools.count(1)

        def advance() -> None:
            self.bars[what] = f"{next(done)}/{total} {unit}"

        yield advance

    def show(self, record: object) -> None:
        self.shown.append(record)


def measure(config: BenchmarkConfig, listener: Listener, engine: type[FakeEngine] = FakeEngine) -> None:
    benchmark.measure_to_disk(prepare(config, NO_GPU, listener), Origin(), listener, engine)


def test_each_repeat_has_its_bar_and_rate(tmp_path: Path) -> None:
    """A single pass is not numbered."""
    config = BenchmarkConfig(model="demo", corpus="demo", repeats=2, results_dir=str(tmp_path))
    listener = Noting()
    measure(config, listener)
    assert list(listener.bars.items())[1:] == [
        ("transcribing, repeat 1 of 2", "8/8 reqs/sec"),
        ("transcribing, repeat 2 of 2", "8/8 reqs/sec"),
    ]
    assert len(listener.shown) == 1
    single = Noting()
    measure(dataclasses.replace(config, repeats=1), single)
    assert list(single.bars)[1:] == ["transcribing"]


@pytest.mark.parametrize("requested", [False, True])
def test_transcripts_of_other_corpora_are_printed_on_request(requested: bool, tmp_path: Path) -> None:
    """Those of the demo are always printed."""
    (tmp_path / "corpus").mkdir()
    corpus_of(tmp_path / "corpus", [0.2])
    config = BenchmarkConfig(
        model="demo",
        corpus=str(tmp_path / "corpus"),
        print_transcripts=requested,
        results_dir=str(tmp_path / "results"),
    )
    listener = Noting()
    measure(config, listener)
    assert len(listener.shown) == requested


def test_a_signal_reports_the_saved_transcripts(tmp_path: Path) -> None:
    """Their number and their file, which exists."""

    class Stopped(FakeEngine):
        warm = True

        def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
            for number, found in enumerate(super().transcribe(utterances)):
                if number == 3 and not Stopped.warm:
                    raise Interrupted(2)
                yield found
            Stopped.warm = False

    listener = Noting()
    config = BenchmarkConfig(model="demo", corpus="demo", repeats=2, results_dir=str(tmp_path))
    with pytest.raises(Interrupted):
        measure(config, listener, Stopped)
    (file,) = tmp_path.glob("*.partial/transcripts.jsonl")
    assert listener.sentences[-1] == f"3 finished transcripts are saved in {file}"
    assert file.read_bytes().count(b"\n") == 3
