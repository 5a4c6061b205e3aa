"""Options of a sweep, and ranges of numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from whisperbench.config.benchmark import MAIN, BenchmarkConfig
from whisperbench.config.compare import SORTS
from whisperbench.config.option import (
    NON_EMPTY,
    TRUE_OR_FALSE,
    Options,
    Rule,
    at_least,
    kind_of,
    one_of,
    option,
    parse,
    text_of,
)
from whisperbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """`low..high` or `low..high:step`: what a search may choose from, both ends included.

    Whole numbers without a step are searched on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None

    def nearest(self, value: float) -> float:
        """The choice next to a value."""
        inside = max(self.low, min(self.high, value))
        if self.step is None:
            return inside
        return self.low + min(round((inside - self.low) / self.step), (self.high - self.low) // self.step) * self.step


def parse_range(name: str, text: str, kind: type[Any], rule: Rule) -> Range:
    """The range that an option's text names.

    Raises:
        ConfigError: the text is no range, or an end of it is not allowed for the option.
    """
    limits, _, step_text = text.partition(":")
    low_text, _, high_text = limits.partition("..")
    low, high = (parse(part.strip(), kind, name) for part in (low_text, high_text))
    step = parse(step_text.strip(), kind, name) if step_text else None
    if low >= high or (step is not None and step <= 0):
        raise ConfigError(f"{name}={text!r} is not allowed: expected low..high or low..high:step with low below high.")
    for end in (low, high):
        if not rule.holds(end):
            raise ConfigError(f"{name}={text!r} is not allowed: {text_of(end)} is not {rule.text}.")
    if kind is int and step is None and low < 1:
        raise ConfigError(
            f"{name}={text!r} is not allowed: 0 is not on a logarithmic scale; start above it or give a step."
        )
    return Range(low, high, step)


LISTS = {
    "models": "model",
    "kv_cache_dtypes": "kv_cache_dtype",
    "max_num_seqs": "max_num_seqs",
    "dtypes": "dtype",
    "corpora": "corpus",
    "splits": "split",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "load_format": "load_format",
    "front_end": "front_end",
    "engine": "engine",
    "padding_stride": "padding_stride",
}
"""Options that take a list, and the benchmark's option that each value is for; the first turns slowest."""

NOT_IN_A_SWEEP = frozenset({"offline"})
"""Without a tracking server a sweep cannot tell what is done."""


def listed(name: str) -> Any:
    """The option of the benchmark as a list: same default, same help."""
    return option(text_of(MAIN[name].default), NON_EMPTY, f"List, separated by commas. {MAIN[name].metadata['help']}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions(Options):
    """Options that the benchmark does not have, or has for one value only."""

    models: str = listed("model")
    kv_cache_dtypes: str = listed("kv_cache_dtype")
    max_num_seqs: str = listed("max_num_seqs")
    dtypes: str = listed("dtype")
    corpora: str = listed("corpus")
    splits: str = listed("split")
    max_num_batched_tokens: str = listed("max_num_batched_tokens")
    gpu_memory_utilization: str = listed("gpu_memory_utilization")
    load_format: str = listed("load_format")
    front_end: str = listed("front_end")
    engine: str = listed("engine")
    padding_stride: str = listed("padding_stride")
    grid: str = option(
        "none",
        NON_EMPTY,
        "A grid that is no full product: a YAML file, 'published' (six settings per GPU), 'bench' (of `make bench`) or "
        "'padding' (all positions and thinned).",
    )
    repeats: int = option(
        1, at_least(1), "Measure each configuration N times, a b a b, each in a run of its own (in a search: in one)."
    )
    order: str = option(
        "given", one_of("given", "random"), "Order of the configurations within a round; random is seeded."
    )
    dry_run: bool = option(False, TRUE_OR_FALSE, "Say what would run, what is done and how long it takes; run nothing.")
    resume: bool = option(
        True, TRUE_OR_FALSE, "Leave out what an earlier sweep has finished; false = measure all again."
    )
    time_limit_minutes: float = option(0.0, at_least(0), "Stop a configuration that takes longer; 0 = no limit.")
    objective: str = option(
        "none",
        one_of("none", *SORTS),
        "Search for the best setting by this instead of measuring a grid. Lists are choices, and numbers may be a "
        "range: max_num_seqs=64..512 or max_num_batched_tokens=12000..96000:1500.",
    )
    max_wer: float = option(0.0, at_least(0), "The search takes no setting with a WER above this, in percent; 0 = any.")
    trials: int = option(20, at_least(1), "Settings that a search measures.")
    gpus_at_once: int = option(
        1, at_least(0), "Configurations measured side by side, each on a GPU of its own; 0 = as many as there are GPUs."
    )

    def check_together(self) -> None:
        if self.searches:
            if self.grid != "none":
                raise ConfigError(
                    f"objective={self.objective} searches ranges, grid={self.grid} lists settings: choose one."
                )
            for name in ("corpora", "splits", "load_format"):
                if "," in getattr(self, name):
                    raise ConfigError(f"{name}={getattr(self, name)} is not allowed: a search needs one set of data.")
            if self.load_format == "dummy" and (self.max_wer or self.objective == "wer"):
                raise ConfigError("load_format=dummy is random weights: they have no WER to search by.")
            if self.objective == "cost" and not self.one.gpu_hourly_usd:
                raise ConfigError("objective=cost needs a price: give gpu_hourly_usd.")
        elif self.max_wer:
            raise ConfigError(f"max_wer={self.max_wer} bounds a search: give objective=reqs_per_sec too.")
        if self.gpus_at_once != 1 and (self.searches or self.one.gpus != 1):
            raise ConfigError(
                f"gpus_at_once={self.gpus_at_once} measures independent configurations of one GPU each: not a search, "
                "and not with gpus above 1."
            )
        for name in LISTS:
            self.values(name)

    @property
    def searches(self) -> bool:
        return self.objective != "none"

    @property
    def common(self) -> dict[str, str]:
        """The benchmark's options that every configuration shares, as a command line carries them."""
        names = [field.name for field in dataclasses.fields(self) if field.name in MAIN and field.name not in LISTS]
        return {name: text_of(getattr(self, name)) for name in names} | {"repeats": str(self.repeats_in_a_run)}

    @property
    def one(self) -> BenchmarkConfig:
        """The shared options as a benchmark's, for their types: seed, limit, results_dir."""
        return BenchmarkConfig.from_params(self.common)

    @property
    def repeats_in_a_run(self) -> int:
        return self.repeats if self.searches else 1

    def values(self, name: str) -> tuple[str, ...] | Range:
        """The values of a list option as text, or the range that a search goes through.

        Raises:
            ConfigError: a value is empty, given twice or no number where one is needed; or a range without a search.
        """
        text = getattr(self, name)
        kind = kind_of(MAIN[LISTS[name]])
        if ".." in text and kind is not str:
            if not self.searches:
                raise ConfigError(f"{name}={text} is a range, and only a search goes through one: give objective too.")
            return parse_range(name, text, kind, MAIN[LISTS[name]].metadata["rule"])
        values = tuple(part.strip() for part in text.split(","))
        if not all(values) or len(set(values)) < len(values):
            raise ConfigError(f"{name}={text!r} is not allowed: expected different values, separated by commas.")
        for value in values:
            parse(value, kind, name)
        return values


SweepConfig: type[SweepOptions] = dataclasses.make_dataclass(
    "SweepConfig",
    [
        (field.name, kind_of(field), option(field.default, field.metadata["rule"], field.metadata["help"]))
        for field in MAIN.values()
        if field.name not in {*LISTS.values(), *NOT_IN_A_SWEEP, *(own.name for own in dataclasses.fields(SweepOptions))}
    ],
    bases=(SweepOptions,),
    frozen=True,
    slots=True,
    kw_only=True,
)
