"""A system is a set of runs that are repeats of each other, and one row of a leaderboard."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import Option, labels
from whisperbench.results.names import GIT_DIRTY, WARNINGS, error_metric
from whisperbench.results.record import TIMED, RunIdentity, RunRecord
from whisperbench.stats.clusters import share_at_most
from whisperbench.stats.rates import RateEstimate


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class System:
    """Runs that are repeats of each other, newest first."""

    runs: tuple[RunRecord, ...]

    @property
    def newest(self) -> RunRecord:
        return self.runs[0]

    @property
    def typical(self) -> RunRecord:
        """The run with the median WER (the lower of the middle two); the newest if no run has a WER."""
        scored = sorted((wer, run.run_id, run) for run in self.runs if (wer := run.wer) is not None)
        return scored[(len(scored) - 1) // 2][2] if scored else self.newest

    @property
    def wer(self) -> float | None:
        """The WER in percent, or the CER if characters are counted."""
        return self.typical.wer

    @property
    def error_rate(self) -> str:
        """`WER`, or `CER` if characters are counted."""
        return error_metric(self.typical.metrics).upper()

    @property
    def unit(self) -> str:
        """What the errors are counted in: words, or characters in languages without blanks."""
        return "characters" if self.error_rate == "CER" else "words"

    @property
    def loops(self) -> str:
        """`0 of 1,313 (at most 0.23 % of clips)`; an empty string if repetition loops were not counted.

        A set without a loop cannot exclude rare ones, which are many errors each, so the limit is shown.
        """
        loops, utterances = self.typical.metric("repetition_loops"), self.typical.metric("utterances")
        if loops is None or not utterances:
            return ""
        limit = share_at_most(round(loops), round(utterances))
        return f"{loops:.0f} of {utterances:,.0f} (at most {limit:.2f} % of clips)"

    def by_run(self, metric: str) -> list[tuple[float, ...]]:
        """The values of a rate or cost in the repeats of each run, newest run first."""
        return [run.values(metric) for run in self.runs]

    def median(self, metric: str) -> float | None:
        """The typical value of a metric, which is None if it was not measured.

        Of a rate or cost it is the median of a run's repeats, and of several runs the geometric mean of their medians.
        Of other metrics, such as the WER, it is the value of the typical run.
        """
        if metric == "wer":
            return self.wer
        if metric not in TIMED:
            return self.typical.metric(metric)
        estimate = RateEstimate.of(self.by_run(metric))
        return estimate.figure if estimate else None

    def param(self, name: str) -> str | None:
        return self.newest.params.get(name)

    @property
    def model(self) -> str:
        """The requested model; for a local checkpoint, the name of its directory."""
        model = self.param("model") or "unknown"
        return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model

    @property
    def model_id(self) -> str:
        return self.param("model_id") or self.model

    @property
    def engine_name(self) -> str:
        """`vllm`, `vllm-stock`, `transformers`."""
        return self.param("engine") or OPTIONS["engine"].default_text

    @property
    def engine(self) -> str:
        """`vllm 0.32.0`, `vllm-stock 0.32.0`, `transformers 5.19.0`."""
        version = self.param("engine_version") or ""
        return f"{self.engine_name} {version.partition('+')[0]}".rstrip()

    @property
    def engines(self) -> int:
        """Number of engines that worked together."""
        return self.newest.count("engines")

    @property
    def gpu_count(self) -> int:
        """At least 1; a CPU counts as one device."""
        return self.newest.count("gpu_count")

    @property
    def gpu(self) -> str:
        """`NVIDIA H100 80GB HBM3`, `4 × NVIDIA A10`, or the name of a CPU."""
        return self.newest.gpu if self.gpu_count == 1 else f"{self.gpu_count} × {self.newest.gpu}"

    def requested(self, option: Option) -> str | None:
        """An option as it was requested; None if the engine does not have it."""
        return self.newest.options.get(option.name, option.default_text) if option.has(self.engine_name) else None

    @property
    def settings(self) -> str:
        """`fp8 seqs256 stride16`: labels of the options, except those that all rows share; empty for the defaults."""
        options = dict(self.newest.options)
        if (batch_size := self.param("batch_size")) is not None:
            options["batch_size"] = batch_size  # differs between engines with `auto`
        parts = [label for name, label in labels(OPTIONS, options).items() if not OPTIONS[name].in_keys]
        if self.engines > 1 and self.param("gpu_count") == "0":
            parts.append(f"{self.engines} engines")
        return " ".join([*parts, *(["CUDA MPS"] if self.param("cuda_mps") else [])])

    @property
    def description(self) -> str:
        """The settings (`fp8 seqs256 stride16`), or 'default settings'."""
        return self.settings or "default settings"

    @property
    def label(self) -> str:
        """`large-v3 fp8 seqs256`, `large-v3 faster-whisper batch16`."""
        return f"{self.model} {self.settings}".rstrip()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the measurement that the runs have recorded."""
        recorded = {run.tags[WARNINGS] for run in self.runs if run.tags.get(WARNINGS)}
        dirty = any(run.tags.get(GIT_DIRTY) == "true" for run in self.runs)
        return (*sorted(recorded), *(("measured with uncommitted changes",) if dirty else ()))


def other_settings(options: Mapping[str, Option], changed: Mapping[str, str]) -> str:
    """`quantization=fp8, enforce_eager=true`: options of `changed` without a column that rows may differ in."""
    return ", ".join(
        f"{name}={changed[name]}"
        for name, each in options.items()
        if name in changed and each.identity and not each.in_keys and each.column is None
    )


def systems(records: Iterable[RunRecord]) -> tuple[System, ...]:
    """Records of one group, grouped into systems by `RunIdentity`; a run without a config digest has no repeats."""
    found: defaultdict[RunIdentity | str, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True):
        identity = RunIdentity.of(record.params, record.tags)
        found[identity if identity.config_digest else record.run_id].append(record)
    return tuple(System(tuple(runs)) for runs in found.values())
