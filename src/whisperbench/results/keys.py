"""Comparability keys: two runs are ranked by WER or by rate only if the respective key is equal."""

from __future__ import annotations

from collections.abc import Mapping

from whisperbench import __version__
from whisperbench.config.benchmark import OPTIONS, VLLM_ENGINES, BenchmarkConfig
from whisperbench.engines.base import EngineInfo
from whisperbench.engines.hardware import Hardware
from whisperbench.measure.normalizer import unit_of
from whisperbench.results.names import SCHEMA
from whisperbench.results.run_info import RunInfo


def key(**fields: object) -> str:
    """Write a key like `dataset=ab12|limit=all|language=en`."""
    return "|".join(f"{name}={str(value).replace('|', '/')}" for name, value in fields.items())


def fields_of(text: str) -> dict[str, str]:
    """Parse a key like `dataset=ab12|limit=all`."""
    return {name: value for name, _, value in (part.partition("=") for part in text.split("|"))}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Map each field that differs between two keys to (expected value, found value)."""
    names = dict.fromkeys((*expected, *found))
    pairs = {name: (expected.get(name, "not set"), found.get(name, "not set")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def accuracy_key(config: BenchmarkConfig, dataset_digest: str, normalizer: str) -> str:
    """The fields that two runs must share before their WER or CER is ranked."""
    return key(
        dataset=dataset_digest,
        limit=OPTIONS["limit"].text(config.limit),
        normalizer=normalizer,
        unit=unit_of(config.language),
        language=config.language,
        long_audio=config.long_audio,
    )


def with_normalizer(accuracy_key: str, normalizer: str) -> str:
    """The accuracy key after a run was scored again with another normaliser."""
    return key(**{**fields_of(accuracy_key), "normalizer": normalizer})


def speed_key(config: BenchmarkConfig, dataset_digest: str, hardware: Hardware) -> str:
    """The fields that two runs must share before their rates are ranked; the name of a GPU has its MIG profile."""
    limits = {} if hardware.gpu_power_limit_watts is None else {"gpu_power_limit_watts": hardware.gpu_power_limit_watts}
    return key(
        dataset=dataset_digest,
        limit=OPTIONS["limit"].text(config.limit),
        long_audio=config.long_audio,
        weights="random" if config.random_weights else "real",
        gpu=hardware.gpu_name,
        gpu_count=hardware.gpu_count,
        **limits,
        cpu_cores=f"{hardware.cpu_cores:g}",
        schema=SCHEMA,
    )


def signature(info: RunInfo, engine: EngineInfo, normalizer: str) -> str:
    """One line with model, data, scoring, engine and GPU, modelled on sacreBLEU's signature."""
    config = info.config
    on_vllm = config.engine in VLLM_ENGINES
    return key(
        model=info.model_id,
        rev=(info.model_revision or "none")[:12],
        data=f"{info.dataset.name}/{info.dataset.split}#{info.dataset.digest[:8]}",
        n=OPTIONS["limit"].text(config.limit),
        norm=normalizer,
        lang=config.language,
        long=config.long_audio,
        dtype=engine.dtype_effective,
        kv=engine.kv_cache_dtype_effective,
        **({"seqs": config.max_num_seqs} if on_vllm else {"batch": info.settings.batch_size}),
        **{config.engine: engine.engine_version},
        **{name: text for name, text in config.changed().items() if config.declared()[name].in_signature},
        gpu=info.hardware.gpu_name,
        v=__version__,
    )
