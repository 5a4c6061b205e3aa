"""What a configuration's run will be on this machine: which weights, data, engine and GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from whisperbench.engines.hardware import Hardware, engine_version, free_cores, one_kind
from whisperbench.errors import WhisperbenchError
from whisperbench.inputs.checkpoint import resolve_model
from whisperbench.inputs.corpus import Corpus, load_corpus
from whisperbench.inputs.inspection import CorpusFacts, inspect_corpus
from whisperbench.inputs.packing import packed
from whisperbench.listener import Listener
from whisperbench.options.benchmark import VLLM, BenchmarkConfig
from whisperbench.results.keys import speed_key
from whisperbench.results.names import CONFIG_DIGEST, SPEED_KEY
from whisperbench.results.repeats import Identity


class Identities:
    """Finds identities on this machine, or on the cluster that `hardware` is of; a model and a set of data are looked
    at once, however many share them.

    Looking at them also downloads, converts and decodes what was not before, so that no configuration's
    process has to.
    """

    def __init__(self, hardware: Hardware, vllm_version: str | None, cache_dir: Path, listener: Listener) -> None:
        self._hardware, self._vllm_version = hardware, vllm_version
        self._cache_dir, self._listener = cache_dir, listener
        self._known: dict[tuple[object, ...], str | WhisperbenchError | None] = {}

    def of(self, config: BenchmarkConfig) -> Identity:
        """The identity that a run of these options would have.

        Raises:
            ModelError, CorpusError, AudioError: the configuration cannot be measured.
        """
        dataset, revision = self._digest(config), self._revision(config)
        version = self._vllm_version if config.engine in VLLM else engine_version(config.engine)
        params = {"model_revision_resolved": revision or "", "engine_version": version or ""}
        tags = {CONFIG_DIGEST: config.digest, SPEED_KEY: speed_key(config, dataset, self._hardware_of(config))}
        return Identity.of({**config.as_params(), **params}, tags)

    def of_measurable(self, config: BenchmarkConfig) -> Identity | None:
        """The same; None for what cannot be measured here: its own process will say why, in a run of its own."""
        try:
            return self.of(config)
        except WhisperbenchError:
            return None

    def require_one(self, configs: Iterable[BenchmarkConfig]) -> None:
        """Raise the first error when none of them can be measured here at all."""
        errors = []
        for config in configs:
            try:
                self.of(config)
            except WhisperbenchError as error:
                errors.append(error)
            else:
                return
        if errors:
            raise errors[0]

    def _hardware_of(self, config: BenchmarkConfig) -> Hardware:
        return one_kind(self._hardware, config.gpu_kinds, config.gpus)

    def _revision(self, config: BenchmarkConfig) -> str | None:
        model, revision, random_weights = config.model, config.model_revision, config.random_weights

        def find() -> str | None:
            return resolve_model(model, revision, cache_dir=self._cache_dir, random_weights=random_weights).revision

        return self._once(("model", model, revision, random_weights), find)

    def _digest(self, config: BenchmarkConfig) -> str:
        def find() -> str:
            corpus = load_corpus(config.corpus, config.split, config.limit)
            return packed(corpus, config.pack_seconds, inspect)[1].digest

        def inspect(corpus: Corpus) -> CorpusFacts:
            with self._listener.counting("checking audio", len(corpus.utterances), "files/sec") as reached:
                return inspect_corpus(corpus, config.workers or free_cores(), reached, self._cache_dir)

        return str(self._once(("data", config.corpus, config.split, config.limit, config.pack_seconds), find))

    def _once(self, key: tuple[object, ...], find: Callable[[], str | None]) -> str | None:
        """What `find` returns or raises; it is asked once."""
        if key not in self._known:
            try:
                self._known[key] = find()
            except WhisperbenchError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, WhisperbenchError):
            raise found
        return found
