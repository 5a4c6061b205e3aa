"""Options of a sweep, and the benchmark's options, most of which accept a list or a search range."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

from whisperbench.config.benchmark import BenchmarkConfig, require_engine_with
from whisperbench.config.compare import SORTINGS
from whisperbench.config.option import (
    BOOLEAN,
    PATH,
    TEXT,
    Option,
    Options,
    above,
    absolute,
    at_least,
    declared_in,
    one_of,
    option,
)
from whisperbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a search chooses from, `low..high` or `low..high:step` with both ends included.

    Whole numbers without a step are searched on a logarithmic scale.  The step of fractions is 0.01 by default.
    """

    low: float
    high: float
    step: float | None

    def nearest(self, value: float | None) -> float:
        """The number in the range that is nearest to `value`, or the lowest."""
        inside = self.low if value is None else max(self.low, min(self.high, value))
        if self.step is None:
            return inside
        return self.low + min(round((inside - self.low) / self.step), (self.high - self.low) // self.step) * self.step


Axis = tuple[str, ...] | Range
FRACTION_STEP = 0.01


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig(Options):
    """Options of a sweep; `given` holds the texts of the benchmark's options that differ from their defaults."""

    benchmark: ClassVar[type[BenchmarkConfig]] = BenchmarkConfig

    # fmt: off
    grid: str | None = option(None, TEXT,
        "Grid that is not a full product: a YAML file, 'published' (six settings per GPU), 'bench' (vllm and "
        "vllm-stock), 'padding' (full and thinned padding) or 'quantization' (FP8 beside bfloat16).", "Sweep",
        unset="none", common=True)
    repeats: int = option(1, at_least(1),
        "Measure each configuration N times, in interleaved runs (a b a b); in a search, within one run.",
        "Sweep", common=True)
    order: str = option("given", one_of("given", "random"),
        "Order of the configurations within a repeat; random is seeded.", "Sweep")
    dry_run: bool = option(False, BOOLEAN,
        "List all configurations, the finished ones, and the remaining time; measure nothing.", "Sweep", common=True)
    resume: bool = option(True, BOOLEAN,
        "Skip configurations that an earlier sweep has finished; false measures all of them again.", "Sweep")
    time_limit_minutes: float | None = option(None, above(0), "End a configuration that takes longer than N minutes.",
        "Sweep", unset="none")
    parallel_runs: int | None = option(1, at_least(1),
        "Configurations measured concurrently, each on a separate GPU.", "Sweep", unset="all")
    objective: str | None = option(None, one_of(*SORTINGS),
        "Search for the best setting by this metric instead of measuring a grid. Lists are choices, and numbers may "
        "be a range: max_num_seqs=64..512 or max_num_batched_tokens=12000..96000:1500.", "Search", unset="none")
    max_wer: float | None = option(None, at_least(0), "Reject settings with a higher WER, in percent.", "Search",
        unset="none")
    trials: int = option(20, at_least(1), "Number of settings that a search measures.", "Search")
    # fmt: on
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.given:
            self.axis(name)  # refuses values that are not allowed
        super(SweepConfig, self).__post_init__()

    def check_together(self) -> None:
        if self.grid is None:  # the entries of a grid may set other engines
            require_engine_with(self.of_benchmark(), self.given, self.texts("engine"))
        if self.objective is None and self.max_wer is not None:
            raise ConfigError(f"max_wer={self.max_wer} applies only to a search. Set objective=reqs_per_sec too.")
        if self.objective is not None:
            self._check_search()
        if self.parallel_runs != 1 and (self.objective is not None or self.texts("gpus") != ("1",)):
            raise ConfigError(
                f"parallel_runs={self.parallel_runs or 'all'} measures configurations on one GPU each. Use it without "
                "objective and with gpus=1."
            )

    def _check_search(self) -> None:
        if self.grid is not None:
            raise ConfigError(
                f"objective={self.objective} searches for settings, but grid={self.grid} lists them. Use one."
            )
        for name, each in self.of_benchmark().items():
            if each.in_keys and len(self.texts(name)) != 1:
                raise ConfigError(f"{name}={self.given[name]} is not allowed: a search needs one set of data.")
        if self.shared.random_weights and (self.max_wer is not None or self.objective == "wer"):
            raise ConfigError(
                "load_format=dummy loads random weights, which have no WER. Omit max_wer and objective=wer."
            )
        if self.objective == "cost" and self.shared.gpu_hourly_usd is None:
            raise ConfigError("objective=cost needs a price. Set gpu_hourly_usd.")

    @classmethod
    def of_benchmark(cls) -> Mapping[str, Option]:
        """The options of the benchmark that a sweep accepts."""
        return {name: each for name, each in cls.benchmark.declared().items() if each.sweep != "no"}

    @classmethod
    def declared(cls) -> Mapping[str, Option]:
        """The options of the sweep, then those of the benchmark."""
        return {**declared_in(cls), **cls.of_benchmark()}

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        own = {each.name: each.parse(params[each.name]) for each in declared_in(cls).values() if each.name in params}
        given = {}
        for name, each in cls.of_benchmark().items():
            if (text := params.get(name, each.default_text)) != each.default_text:
                given[name] = absolute(text) if each.rule is PATH and text else text
        return cls(**own, given=given)

    def as_params(self) -> dict[str, str]:
        own = super(SweepConfig, self).as_params()
        return {**own, **{name: self.given.get(name, each.default_text) for name, each in self.of_benchmark().items()}}

    @property
    def shared(self) -> BenchmarkConfig:
        """A benchmark configuration with the options that have one value for all configurations."""
        single = {name: self.texts(name)[0] for name in self.of_benchmark() if len(self.texts(name)) == 1}
        return self.benchmark.for_engine({**single, "repeats": str(self.repeats_in_a_run)})

    @property
    def repeats_in_a_run(self) -> int:
        return 1 if self.objective is None else self.repeats

    def axis(self, name: str) -> Axis:
        """The values of a benchmark option as written on the command line, or its search range.

        Lists are CSV (`"a,b"` is one value).

        Raises:
            ConfigError: a value is not allowed, or a range is malformed or not part of a search.
        """
        each = self.of_benchmark()[name]
        text = self.given.get(name, each.default_text)
        if each.type in (int, float) and ".." in text and each.sweep == "list":
            if self.objective is None:
                raise ConfigError(f"{name}={text} is a range, which needs a search. Set objective.")
            return _range(each, text)
        values = next(csv.reader([text], skipinitialspace=True), []) if each.sweep == "list" else [text]
        axis = tuple(value.strip() for value in values)
        if not axis or not all(axis) or len(set(axis)) < len(axis):
            raise ConfigError(f"{name}={text!r} is not allowed: expected different values, separated by commas.")
        for value in axis:
            each.parse(value)
        return axis

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of a benchmark option as written on the command line; empty for a search range."""
        axis = self.axis(name)
        return () if isinstance(axis, Range) else axis


def _range(each: Option, text: str) -> Range:
    """Parse `low..high` or `low..high:step`."""
    limits, _, step_text = text.partition(":")
    low, high = (each.parse(part.strip()) for part in limits.split("..", 1))
    step = dataclasses.replace(each, rule=above(0), unset=None).parse(step_text.strip()) if step_text else None
    if low is None or high is None or low >= high:
        raise ConfigError(
            f"{each.name}={text!r} is not allowed: expected low..high or low..high:step with low below high."
        )
    return Range(low, high, step or (FRACTION_STEP if each.type is float else None))
