"""What a search chooses from, and what it looks for: lists and ranges of the sweep's options."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from whisperbench.errors import ConfigError
from whisperbench.options.benchmark import MAIN, BenchmarkConfig
from whisperbench.options.ranges import Range
from whisperbench.options.record import kind_of, text_of
from whisperbench.options.sortings import SORTINGS, Sorting
from whisperbench.options.sweep import LISTS, SweepOptions
from whisperbench.sweep.grid import sweep_digest

Space = Mapping[str, tuple[str, ...] | Range]
Settings = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """What is searched; `max_wer` in percent, None = no bound.  `fixed` is what every setting shares."""

    space: Space
    fixed: Mapping[str, str]
    sorting: Sorting
    max_wer: float | None
    trials: int
    seed: int

    @classmethod
    def of(cls, options: SweepOptions) -> Search:
        found = {LISTS[name]: options.values(name) for name in LISTS}
        space = {name: values for name, values in found.items() if isinstance(values, Range) or len(values) > 1}
        if not space:
            raise ConfigError(
                "There is nothing to search: every option has one value. Give lists or ranges, for example "
                "max_num_seqs=64..512 and kv_cache_dtypes=auto,fp8."
            )
        single = {name: values[0] for name, values in found.items() if isinstance(values, tuple)}
        fixed = {**options.common, **{name: value for name, value in single.items() if name not in space}}
        sorting, bound = SORTINGS[options.objective], options.max_wer or None
        return cls(space, fixed, sorting, bound, options.trials, options.one.seed)

    def config(self, settings: Mapping[str, str], limit: int | None = None) -> BenchmarkConfig:
        """The benchmark's options for one setting."""
        part = {} if limit is None else {"limit": str(limit)}
        return BenchmarkConfig.from_params({**self.fixed, **settings, **part})

    @property
    def digest(self) -> str:
        """The same search, started again, has it too; more trials do not make it another."""
        fixed = self.config(self.first)
        return sweep_digest([fixed], space=dict(self.space), metric=self.sorting.metric, max_wer=self.max_wer)

    @property
    def most_settings(self) -> int:
        """How many settings are measured at most: lists may hold fewer than `trials`."""
        sizes = [len(values) for values in self.space.values() if isinstance(values, tuple)]
        return min(self.trials, math.prod(sizes)) if len(sizes) == len(self.space) else self.trials

    @property
    def most_seqs(self) -> int:
        """The largest max_num_seqs that a setting may have."""
        values = self.space.get("max_num_seqs", (self.fixed.get("max_num_seqs", "1"),))
        return int(values.high) if isinstance(values, Range) else max(map(int, values))

    def missing_from(self, metrics: Mapping[str, float]) -> str | None:
        """The objective, or the WER where it is bounded, when it is not among the metrics."""
        needed = (self.sorting.metric, *(() if self.max_wer is None else ("wer",)))
        return next((name for name in needed if name not in metrics), None)

    @property
    def first(self) -> dict[str, Any]:
        """The first values of the lists that go together, and the benchmark's default or a range's nearer end.

        Raises:
            ConfigError: none go together; says why the first do not.
        """
        axes: list[tuple[Any, ...]] = []
        for name, values in self.space.items():
            kind = kind_of(MAIN[name])
            axes.append(values if isinstance(values, tuple) else (kind(values.nearest(kind(MAIN[name].default))),))
        refused: list[ConfigError] = []
        for combination in itertools.product(*axes):
            settings = dict(zip(self.space, combination, strict=True))
            try:
                self.config({name: text_of(value) for name, value in settings.items()})
            except ConfigError as error:
                refused.append(error)
            else:
                return settings
        raise refused[0]
