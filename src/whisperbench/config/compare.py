"""Options of compare, upload and doctor, and the orders of a leaderboard."""

from __future__ import annotations

import dataclasses
import math
import re

from whisperbench.config.benchmark import MAIN
from whisperbench.config.option import CLUSTER, NON_EMPTY, SEED, TRUE_OR_FALSE, Options, at_least, one_of, option, parse
from whisperbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Sorting:
    """A metric that runs are ranked by, its name in a heading, and what the first one is where a test says so."""

    metric: str
    heading: str
    first: str
    higher_is_better: bool = False

    @property
    def extreme(self) -> str:
        """`highest reqs/sec`, `lowest WER`: what a figure is that nothing was tested of."""
        return f"{'highest' if self.higher_is_better else 'lowest'} {self.heading}"


SORTINGS = {
    "wer": Sorting("wer", "WER", "Most accurate"),
    "reqs_per_sec": Sorting("reqs_per_sec", "reqs/sec", "Fastest", higher_is_better=True),
    "rtfx": Sorting("rtfx", "RTFx", "Fastest", higher_is_better=True),
    "energy": Sorting("energy_wh_per_audio_hour", "energy per audio hour", "Most frugal"),
    "cost": Sorting("usd_per_audio_hour", "cost per audio hour", "Cheapest"),
}
"""What leaderboards are ranked by, and a search looks for."""

SORTS = tuple(SORTINGS)


RUN_ID = re.compile(r"[0-9a-f]{4,32}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(Options):
    """Options of the compare flow."""

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
    sort: str = option("wer", one_of(*SORTS), "What the leaderboards are ranked by.")
    references: str = option(
        "true",
        one_of("true", "false", "all"),
        "Show published results of GPUs or models that were measured; all = all.",
    )
    prices: str = option(
        "none",
        NON_EMPTY,
        "USD per GPU hour, 'NVIDIA H100 80GB HBM3=2.10,A10=0.60': costs by these prices, whatever they were then.",
    )
    runs: str = option(
        "none", NON_EMPTY, "Two run ids, '<id>,<id>' (of each as many digits as tell it apart): say what changed."
    )
    baseline: str = option(
        "none",
        NON_EMPTY,
        "Regression gate: a run id, a run name or a config digest that the newest run (or the one in runs) is "
        "judged against. Exit status 1 if it is worse, 2 if the two may not be compared.",
    )
    max_slowdown: float = option(5.0, at_least(0), "Percent of throughput that the gate lets go, beyond the noise.")
    format: str = option(
        "auto",
        one_of("auto", "table", "markdown"),
        "What goes to stdout: a table of the terminal's width, or markdown; auto = the table on a terminal.",
    )
    full: bool = option(
        False, TRUE_OR_FALSE, "Print all tables instead of the short answer; leaderboard.html always holds them."
    )
    rescore: bool = option(False, TRUE_OR_FALSE, "Score the stored transcripts again with today's normaliser.")
    results_dir: str = option(MAIN["results_dir"].default, NON_EMPTY, "Directory for the leaderboard's files.")
    seed: int = option(MAIN["seed"].default, SEED, "Seed of the paired tests.")

    def check_together(self) -> None:
        wanted = 1 if self.gates else 2
        if self.runs != "none" and (len(set(self.run_ids)) != wanted or not all(map(RUN_ID.fullmatch, self.run_ids))):
            expected = "one run id beside baseline" if self.gates else "two different run ids, '<id>,<id>'"
            raise ConfigError(
                f"runs={self.runs!r} is not allowed: expected {expected}, each of 4 to 32 hexadecimal digits."
            )
        if not all(name and 0 <= price < math.inf for name, price in self.price_of.items()):
            raise ConfigError(f"prices={self.prices!r} is not allowed: expected '<GPU>=<USD per hour>,…'.")

    @property
    def gates(self) -> bool:
        return self.baseline != "none"

    @property
    def price_of(self) -> dict[str, float]:
        """USD per GPU hour by a GPU's name, or a part of it."""
        pairs = [] if self.prices == "none" else [part.rpartition("=") for part in self.prices.split(",")]
        return {name.strip(): parse(price.strip(), float, "prices") for name, _, price in pairs}

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

    @property
    def searched(self) -> str:
        """What was searched, in words, for when nothing is found."""
        where = "every experiment" if self.experiments == "all" else f"experiment(s) {self.experiments}"
        narrowed = [
            f"{n}={getattr(self, n)}" for n in ("filter", "gpu", "model") if getattr(self, n) not in ("none", "*")
        ]
        return f"{where} with {', '.join(narrowed)}" if narrowed else where


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig(Options):
    """Options of the upload flow."""

    bundles: str = option(
        "results", NON_EMPTY, "A result bundle, a directory of them, or a quoted pattern such as 'results/20261122*'."
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig(Options):
    """Options of the doctor flow."""

    model: str = option(MAIN["model"].default, NON_EMPTY, "Model that is going to be measured.")
    model_revision: str = option(
        MAIN["model_revision"].default, NON_EMPTY, "Branch, tag or commit of a Hugging Face model."
    )
    corpus: str = option(MAIN["corpus"].default, NON_EMPTY, "Corpus that is going to be transcribed.")
    split: str = option(MAIN["split"].default, NON_EMPTY, "Part of the corpus.")
    results_dir: str = option(MAIN["results_dir"].default, NON_EMPTY, "Directory for result bundles.")
    ray_address: str = option("none", CLUSTER, "HOST:PORT of a Ray cluster that is going to be used.")
    json: bool = option(False, TRUE_OR_FALSE, "Print one JSON list instead of lines.")
