"""Preparation of a measurement: everything that can be checked before a run is created and an engine starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import Corpus, Utterance, load_corpus
from whisperbench.corpus.inspection import inspect_corpus
from whisperbench.corpus.packing import pack_utterances
from whisperbench.engines.hardware import Hardware, free_cores, require_ray
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.engines.start import require_engine_for
from whisperbench.errors import CorpusError
from whisperbench.files import cache_directory, require_writable
from whisperbench.measure.score import check_references
from whisperbench.progress import Listener
from whisperbench.results.environment import git_is_dirty
from whisperbench.results.run_info import Dataset, RunInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that can be measured."""

    info: RunInfo
    checkpoint: Checkpoint
    corpus: Corpus

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The utterances of a pass with their copies; with random weights they set the number of tokens to generate."""
        found = self.corpus.copied(self.info.config.corpus_copies)
        if self.info.config.random_weights:
            count = self.checkpoint.count_tokens
            return tuple(dataclasses.replace(each, forced_tokens=count(each.reference or "")) for each in found)
        return found


def prepare(config: BenchmarkConfig, hardware: Hardware, listener: Listener) -> Prepared:
    """Check the directory of the results, the engine, the model, the options on this hardware, and the corpus.

    Raises:
        WhisperbenchError: the configuration cannot be measured.
    """
    require_writable(Path(config.results_dir), "results_dir")
    require_engine_for(hardware, config.engine)
    checkpoint = checkpoint_of(config)
    settings = checked_settings(config, checkpoint, hardware)
    corpus = checked_corpus(config, listener)
    info = RunInfo(
        model_id=checkpoint.model_id,
        model_revision=checkpoint.revision,
        dataset=Dataset(corpus.name, corpus.split, corpus.digest, corpus.source, len(corpus.utterances)),
        utterances_over_30s=corpus.utterances_over_30s,
        silent_utterances=len(corpus.silent),
        hardware=hardware,
        settings=settings,
        git_dirty=git_is_dirty(),
    )
    return Prepared(info, checkpoint, corpus)


def checked_settings(config: BenchmarkConfig, checkpoint: Checkpoint, hardware: Hardware) -> EngineSettings:
    """The resolved settings of the engine, if the hardware and the installed packages support them.

    Raises:
        ConfigError: an option is not supported, or Ray is missing for several engines.
    """
    settings = engine_settings(config, checkpoint, hardware)
    if settings.engines > 1:
        require_ray()
    return settings


def checkpoint_of(config: BenchmarkConfig) -> Checkpoint:
    """The checkpoint of the model, which is downloaded or converted if necessary.

    Raises:
        ModelError: it cannot be found, read or converted, or is not a Whisper model.
    """
    return resolve_model(
        config.model, config.model_revision, cache_dir=cache_directory(), random_weights=config.random_weights
    )


def checked_corpus(config: BenchmarkConfig, listener: Listener) -> Corpus:
    """Load a corpus, decode every file once for its length and digest, and check that references can be scored.

    Raises:
        CorpusError, AudioError: the corpus cannot be transcribed; the message names the file or the utterance.
    """

    def inspect(corpus: Corpus) -> Corpus:
        with listener.counting("checking audio", len(corpus.utterances), "files/sec") as checked:
            return inspect_corpus(corpus, config.reader_threads or free_cores(), checked, cache_directory())

    loaded = load_corpus(config.corpus, config.split, config.limit)
    for sentence in loaded.warnings:
        listener.warning(sentence)
    if not config.random_weights:
        check_references(loaded.utterances, config.language)
    corpus = pack_utterances(loaded, config.pack_seconds, inspect)
    if corpus.silent:
        listener.warning(
            f"{len(corpus.silent)} of {len(corpus.utterances)} utterances are silent, the first is {corpus.silent[0]}: "
            "all samples are zero, or the channels cancel out when they are averaged."
        )
    if config.long_audio == "drop" and corpus.utterances_over_30s == len(corpus.utterances):
        raise CorpusError(
            f"long_audio=drop removes every utterance, because all {len(corpus.utterances)} utterances of "
            f"{corpus.source} are longer than 30 s. Use long_audio=split."
        )
    return corpus
