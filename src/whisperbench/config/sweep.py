"""Options of a sweep: its own ten, and the benchmark's, most of which take a list or a search range."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

from whisperbench.config.benchmark import BenchmarkConfig, not_of_the_engines
from whisperbench.config.compare import SORTS
from whisperbench.config.option import (
    BOOLEAN,
    TEXT,
    Option,
    Options,
    above,
    at_least,
    declared_in,
    one_of,
    option,
)
from whisperbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """`low..high` or `low..high:step`, both ends included: the numbers that a search may choose from.

    Whole numbers without a step are searched on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None

    def nearest(self, value: float) -> float:
        """The choice nearest to a value."""
        inside = max(self.low, min(self.high, value))
        if self.step is None:
            return inside
        return self.low + min(round((inside - self.low) / self.step), (self.high - self.low) // self.step) * self.step


Axis = tuple[str, ...] | Range


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig(Options):
    """Options of a sweep; `axes` holds the benchmark's options that were given, as texts or as a search range."""

    benchmark: ClassVar[type[BenchmarkConfig]] = BenchmarkConfig

    # fmt: off
    grid: str | None = option(None, TEXT,
        "Grid that is not a full product: a YAML file, 'published' (six settings per GPU), 'bench' (vllm and "
        "vllm-stock) or 'padding' (full and thinned padding).", "Sweep", unset="none", common=True)
    repeats: int = option(1, at_least(1),
        "Measure each configuration N times, interleaved (a b a b), in a run each; in a search, within one run.",
        "Sweep", common=True)
    order: str = option("given", one_of("given", "random"),
        "Order of the configurations within a repeat; random is seeded.", "Sweep")
    dry_run: bool = option(False, BOOLEAN,
        "List what would run, what is finished and how long the rest takes; measure nothing.", "Sweep", common=True)
    resume: bool = option(True, BOOLEAN,
        "Skip what an earlier sweep has finished; false measures everything again.", "Sweep")
    time_limit_minutes: float | None = option(None, above(0), "End a configuration that takes longer than N minutes.",
        "Sweep", unset="none")
    parallel_runs: int | None = option(1, at_least(1),
        "Configurations measured concurrently, each on a GPU of its own.", "Sweep", unset="all")
    objective: str | None = option(None, one_of(*SORTS),
        "Search for the best setting by this metric instead of measuring a grid. Lists are choices, and numbers may "
        "be a range: max_num_seqs=64..512 or max_num_batched_tokens=12000..96000:1500.", "Search", unset="none")
    max_wer: float | None = option(None, at_least(0), "Reject settings with a higher WER, in percent.", "Search",
        unset="none")
    trials: int = option(20, at_least(1), "Number of settings that a search measures.", "Search")
    # fmt: on
    axes: Mapping[str, Axis] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, axis in self.axes.items():
            _check_axis(self.of_benchmark()[name], axis, searches=self.searches)
        super(SweepConfig, self).__post_init__()

    def check_together(self) -> None:
        if self.grid is None:  # the entries of a grid may name other engines
            given = {name: self.text(name) for name in self.axes}
            require_engine_with(self.of_benchmark(), given, self.texts("engine"))
        if self.searches:
            if self.grid is not None:
                raise ConfigError(
                    f"objective={self.objective} searches lists and ranges, grid={self.grid} lists settings. Use one."
                )
            for name, each in self.of_benchmark().items():
                if each.in_keys and len(self.texts(name)) != 1:
                    raise ConfigError(f"{name}={self.text(name)} is not allowed: a search needs one set of data.")
            if self.shared.random_weights and (self.max_wer is not None or self.objective == "wer"):
                raise ConfigError("load_format=dummy loads random weights: they have no WER to search by.")
            if self.objective == "cost" and self.shared.gpu_hourly_usd is None:
                raise ConfigError("objective=cost needs a price. Give gpu_hourly_usd.")
        elif self.max_wer is not None:
            raise ConfigError(f"max_wer={self.max_wer} is the bound of a search. Give objective=reqs_per_sec too.")
        if self.parallel_runs != 1 and (self.searches or self.texts("gpus") != ("1",)):
            raise ConfigError(
                f"parallel_runs={self.text('parallel_runs')} measures independent configurations of one GPU each. Use "
                "it without objective and with gpus=1."
            )

    @classmethod
    def of_benchmark(cls) -> Mapping[str, Option]:
        """The benchmark's options that a sweep has too."""
        return {name: each for name, each in cls.benchmark.declared().items() if each.sweep != "no"}

    @classmethod
    def declared(cls) -> Mapping[str, Option]:
        """The sweep's own ten options, then the benchmark's."""
        return {**declared_in(cls), **cls.of_benchmark()}

    @classmethod
    def takes_list(cls, name: str) -> bool:
        return name in cls.of_benchmark() and cls.of_benchmark()[name].sweep == "list"

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        own = {each.name: each.parse(params[each.name]) for each in declared_in(cls).values() if each.name in params}
        given = {
            name: read_axis(each, params[name])
            for name, each in cls.of_benchmark().items()
            if name in params and params[name] != each.default_text
        }
        return cls(**own, axes=given)

    def as_params(self) -> dict[str, str]:
        return {name: self.text(name) for name in self.declared()}

    @property
    def searches(self) -> bool:
        return self.objective is not None

    @property
    def shared(self) -> BenchmarkConfig:
        """The options that have one value for all configurations, as a benchmark's."""
        single = {name: self.texts(name)[0] for name in self.of_benchmark() if len(self.texts(name)) == 1}
        return self.benchmark.for_engine({**single, "repeats": str(self.repeats_in_a_run)})

    @property
    def repeats_in_a_run(self) -> int:
        return self.repeats if self.searches else 1

    def axis(self, name: str) -> Axis:
        """The values of an option of the benchmark as texts, or its search range."""
        return self.axes.get(name, (self.of_benchmark()[name].default_text,))

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of an option of the benchmark; none for a search range."""
        axis = self.axis(name)
        return () if isinstance(axis, Range) else axis

    def text(self, name: str) -> str:
        """An option in the command line's spelling."""
        if name in declared_in(type(self)):
            return declared_in(type(self))[name].text(getattr(self, name))
        axis, found = self.axis(name), io.StringIO()
        if isinstance(axis, Range):
            ends = f"{axis.low}..{axis.high}"
            return ends if axis.step is None else f"{ends}:{axis.step}"
        if self.of_benchmark()[name].sweep == "same":
            return axis[0]
        csv.writer(found, lineterminator="").writerow(axis)
        return found.getvalue()


def read_axis(each: Option, text: str) -> Axis:
    """The values of a list as csv.reader reads it (`"a,b"` is one value), or the range `low..high:step`.

    Raises:
        ConfigError: a value is not allowed for the option, or the text is neither.
    """
    if each.sweep == "same":
        return (text,)
    if ".." in text and each.type in (int, float):
        return _range(each, text)
    return tuple(value.strip() for value in next(csv.reader([text], skipinitialspace=True), []))


def require_engine_with(options: Mapping[str, Option], given: Mapping[str, str], engines: Iterable[str]) -> None:
    """Refuse a given option (name to text) that none of the engines has.

    Raises:
        ConfigError: the message names the engines that have it.
    """
    for name, text in given.items():
        if not any(options[name].has(engine) for engine in engines):
            raise ConfigError(not_of_the_engines(options[name], text))


def _check_axis(each: Option, axis: Axis, *, searches: bool) -> None:
    if isinstance(axis, Range):
        if not searches:
            raise ConfigError(f"{each.name}={axis.low}..{axis.high} is a range of a search. Give objective too.")
        return
    if not all(axis) or len(set(axis)) < max(1, len(axis)):
        raise ConfigError(
            f"{each.name}={','.join(axis)!r} is not allowed: expected different values, separated by commas."
        )
    for text in axis:
        each.parse(text)


def _range(each: Option, text: str) -> Range:
    limits, _, step_text = text.partition(":")
    low, high = (each.parse(part.strip()) for part in limits.split("..", 1))
    step = dataclasses.replace(each, rule=above(0), unset=None).parse(step_text.strip()) if step_text else None
    if low is None or high is None or low >= high:
        raise ConfigError(
            f"{each.name}={text!r} is not allowed: expected low..high or low..high:step with low below high."
        )
    return Range(low, high, step)
