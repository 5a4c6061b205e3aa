"""What must agree before two runs are ranked together, as readable keys: how they are written, read and compared."""

from __future__ import annotations

from collections.abc import Mapping

from whisperbench import __version__
from whisperbench.config.benchmark import OPTIONS, VLLM_ENGINES, BenchmarkConfig
from whisperbench.engines.hardware import Hardware
from whisperbench.results.names import SCHEMA
from whisperbench.results.run_info import RunInfo


def key(**fields: object) -> str:
    """`dataset=ab12|limit=all|language=en`: readable, so that two keys can say where they differ."""
    return "|".join(f"{name}={str(value).replace('|', '/')}" for name, value in fields.items())


def fields_of(text: str) -> dict[str, str]:
    """`dataset=ab12|limit=all` as a dictionary."""
    return {name: value for name, _, value in (part.partition("=") for part in text.split("|"))}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field to (expected, found), for the fields of two keys that differ."""
    names = dict.fromkeys((*expected, *found))
    pairs = {name: (expected.get(name, "not set"), found.get(name, "not set")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def accuracy_key(config: BenchmarkConfig, dataset_digest: str, normalizer: str) -> str:
    """What two runs must share before their WER is ranked."""
    return key(
        dataset=dataset_digest,
        limit=OPTIONS["limit"].text(config.limit),
        normalizer=normalizer,
        language=config.language,
        long_audio=config.long_audio,
    )


def with_normalizer(accuracy_key: str, normalizer: str) -> str:
    """The accuracy key of a run that was scored again."""
    return key(**{**fields_of(accuracy_key), "normalizer": normalizer})


def speed_key(config: BenchmarkConfig, dataset_digest: str, hardware: Hardware) -> str:
    """What two runs must share before their rates are ranked."""
    return key(
        dataset=dataset_digest,
        limit=OPTIONS["limit"].text(config.limit),
        long_audio=config.long_audio,
        weights="random" if config.random_weights else "real",
        gpu=hardware.gpu_name,
        gpu_count=hardware.gpu_count,
        schema=SCHEMA,
    )


def signature(config: BenchmarkConfig, facts: RunInfo, normalizer: str) -> str:
    """One line that says everything that matters, as sacreBLEU's does."""
    padding = {} if config.padding_stride == 1 else {"padding_stride": config.padding_stride}
    return key(
        model=facts.model_id,
        rev=(facts.model_revision or "none")[:12],
        data=f"{facts.dataset.name}/{facts.dataset.split}#{facts.dataset.digest[:8]}",
        n=OPTIONS["limit"].text(config.limit),
        norm=normalizer,
        lang=config.language,
        long=config.long_audio,
        dtype=facts.engine.dtype_effective,
        kv=facts.engine.kv_cache_dtype_effective,
        **_engine(config, facts),
        **padding,
        gpu=facts.hardware.gpu_name,
        v=__version__,
    )


def _engine(config: BenchmarkConfig, facts: RunInfo) -> dict[str, object]:
    """The engine's version, and how many sequences or windows it takes concurrently."""
    version = {config.engine: facts.engine.engine_version}
    if config.engine in VLLM_ENGINES:
        return {"seqs": config.max_num_seqs, **version}
    return {"batch": facts.settings.batch_size, **version}
