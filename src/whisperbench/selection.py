"""What a comparison was asked for: its options, and which runs they select."""

from __future__ import annotations

import dataclasses
import fnmatch
import re

from whisperbench.alignment import visible
from whisperbench.config import NON_EMPTY, SEED, TRUE_OR_FALSE, at_least, one_of, option, validate
from whisperbench.configurations import RunRecord
from whisperbench.errors import ConfigError, WhisperbenchError

RUN_ID = re.compile(r"[0-9a-f]{32}")


class ComparisonError(WhisperbenchError):
    """Runs that were asked for cannot be found, or may not be compared with each other.

    The message may name runs: what others wrote is made visible, so that a terminal does not obey it.
    """

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Options of the compare flow.

    Raises:
        ConfigError: a value is not allowed; the message names the option, the value and the rule.
    """

    experiments: str = option("all", NON_EMPTY, "Names of experiments, separated by commas; all = every one.")
    filter: str = option(
        "none", NON_EMPTY, "MLflow's own filter, for example \"metrics.wer < 3 and params.dtype = 'bfloat16'\"."
    )
    gpu: str = option(
        "*", NON_EMPTY, "GPU name; * and ? stand for anything. Without them any name that holds the text."
    )
    model: str = option(
        "*", NON_EMPTY, "Model, as it was asked for or as its Hugging Face id; * and ? stand for anything."
    )
    sort: str = option(
        "wer", one_of("wer", "reqs_per_sec", "rtfx", "energy", "cost"), "What the leaderboards are ranked by."
    )
    references: bool = option(True, TRUE_OR_FALSE, "Show published results beside the measured ones.")
    runs: str = option("none", NON_EMPTY, "Two run ids, '<id>,<id>': say what changed between them.")
    baseline: str = option(
        "none",
        NON_EMPTY,
        "Regression gate: a run id, a run name or a config digest that the newest run (or the one in runs) is "
        "judged against. Exit status 1 if it is worse, 2 if the two may not be compared.",
    )
    max_slowdown: float = option(5.0, at_least(0), "Percent of throughput that the gate lets go, beyond the spread.")
    rescore: bool = option(False, TRUE_OR_FALSE, "Score the stored transcripts again with today's normaliser.")
    results_dir: str = option("results", NON_EMPTY, "Directory for the leaderboard's files.")
    seed: int = option(32, SEED, "Seed of the paired tests.")

    def __post_init__(self) -> None:
        validate(self)
        wanted = 1 if self.gates else 2
        if self.runs != "none" and (len(set(self.run_ids)) != wanted or not all(map(RUN_ID.fullmatch, self.run_ids))):
            expected = "one run id beside baseline" if self.gates else "two different run ids, '<id>,<id>'"
            raise ConfigError(f"runs={self.runs!r} is not allowed: expected {expected}, each of 32 hexadecimal digits.")

    @property
    def gates(self) -> bool:
        return self.baseline != "none"

    @property
    def run_ids(self) -> tuple[str, ...]:
        return () if self.runs == "none" else tuple(part.strip() for part in self.runs.split(","))

    @property
    def experiment_names(self) -> tuple[str, ...] | None:
        """None stands for every experiment."""
        return None if self.experiments == "all" else tuple(n.strip() for n in self.experiments.split(",") if n.strip())

    @property
    def filter_text(self) -> str | None:
        return None if self.filter == "none" else self.filter

    def selects(self, record: RunRecord) -> bool:
        """Whether a run's GPU and model match the globs; case does not matter."""
        gpu = self.gpu if set(self.gpu) & set("*?[") else f"*{self.gpu}*"
        model_id = record.params.get("model_id", "")
        models = (record.params.get("model", ""), model_id, model_id.rpartition("/")[2])
        return _matches(record.gpu, gpu) and any(_matches(name, self.model) for name in models)

    @property
    def searched(self) -> str:
        """What was searched, in words, for when nothing is found."""
        where = "every experiment" if self.experiments == "all" else f"experiment(s) {self.experiments}"
        narrowed = [
            f"{n}={getattr(self, n)}" for n in ("filter", "gpu", "model") if getattr(self, n) not in ("none", "*")
        ]
        return f"{where} with {', '.join(narrowed)}" if narrowed else where


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())
