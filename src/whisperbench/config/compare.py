"""Options of compare, upload and doctor, and the sort orders of a leaderboard."""

from __future__ import annotations

import dataclasses
import re

from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import BOOLEAN, PATH, TEXT, Options, Rule, above, field_of, one_of, option
from whisperbench.errors import ConfigError

RUN_ID = re.compile(r"[0-9a-f]{4,32}")
PRICE = re.compile(r"\s*([^\s=][^=]*?)\s*=\s*([0-9]{1,9}(\.[0-9]*)?|\.[0-9]+)\s*")


def _are_prices(text: str) -> bool:
    found = [PRICE.fullmatch(part) for part in text.split(",")]
    names = {match[1].lower() for match in found if match}
    return len(names) == len(found)


PRICES = Rule("GPU=USD per GPU hour, each GPU once, separated by commas, such as H100=2.10,A10=0.60", _are_prices)
PERCENT = Rule("a number from 0 to less than 100", lambda value: 0 <= value < 100)


@dataclasses.dataclass(frozen=True, slots=True)
class Sorting:
    """A metric for ranking, and its name in headings."""

    metric: str
    heading: str
    higher_is_better: bool = False


SORTINGS = {
    "wer": Sorting("wer", "WER"),
    "reqs_per_sec": Sorting("reqs_per_sec", "reqs/sec", higher_is_better=True),
    "rtfx": Sorting("rtfx", "RTFx", higher_is_better=True),
    "energy": Sorting("energy_wh_per_audio_hour", "energy per audio hour"),
    "cost": Sorting("usd_per_audio_hour", "cost per audio hour"),
}
"""Sort orders of a leaderboard, and objectives of a search."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig(Options):
    """Options of a comparison of runs."""

    # fmt: off
    experiments: str | None = option(None, TEXT, "Names of experiments, separated by commas.", "Runs",
        unset="all", common=True)
    filter: str | None = option(None, TEXT,
        "Filter of MLflow, for example \"metrics.wer < 3 and params.dtype = 'bfloat16'\".", "Runs", unset="none")
    gpu: str | None = option(None, TEXT, "GPU name or a part of it; * and ? match any text.", "Runs",
        unset="any", common=True)
    model: str | None = option(None, TEXT,
        "Model as it was requested, or its Hugging Face id; * and ? match any text.", "Runs", unset="any", common=True)
    runs: str | None = option(None, TEXT,
        "Two run ids, '<id>,<id>' (the first 4 digits or more): show what changed from the first to the second. With "
        "baseline, one to three run ids of the candidate.",
        "Runs", unset="none", common=True)
    sort: str = option("wer", one_of(*SORTINGS),
        "Metric that leaderboards are sorted by; with wer, the short answer is sorted by cost if prices are known, "
        "else by reqs_per_sec.", "Ranking", common=True)
    published: str = option("matching", one_of("matching", "none", "all"),
        "Published results to show; matching shows those of the measured GPUs or models.", "Ranking")
    prices: str | None = option(None, PRICES,
        "USD per hour of one GPU, such as 'H100=2.10,A10=0.60', from which costs are computed. The name is that of "
        "the GPU or whole words of it; the full name takes precedence.", "Ranking", unset="none", common=True)
    margin: float = option(0.2, above(0),
        "Difference of WER, in points, that counts as the same; set it before you look at the results.", "Ranking",
        common=True)
    reference: str | None = option(None, TEXT,
        "Run id, run name or config digest with which the WER of the other rows is compared.", "Ranking",
        unset="best")
    rescore: bool = option(False, BOOLEAN, "Score the stored transcripts again with the installed normaliser.",
        "Ranking")
    baseline: str | None = option(None, TEXT,
        "Regression gate: run id, run name or config digest with which the newest run and its repeats of the same "
        "commit, or those in runs, are compared. Exit status 0 if a regression is excluded, 1 if one is shown, 2 if "
        "neither is shown or the runs cannot be compared.", "Gate",
        unset="none", common=True)
    max_slowdown: float = option(5.0, PERCENT, "Loss of throughput in percent that the gate accepts.", "Gate")
    format: str = option("auto", one_of("auto", "table", "markdown"),
        "Format on stdout: a table of the terminal's width, or markdown; auto is the table on a terminal.", "Output")
    full: bool = option(False, BOOLEAN,
        "Print all tables instead of the short answer; leaderboard.html always holds them.", "Output")
    results_dir: str = field_of(OPTIONS["results_dir"])
    # fmt: on

    def check_together(self) -> None:
        ids, counts, expected = self.run_ids, [2], "two different run ids, '<id>,<id>'"
        if self.baseline is not None:
            counts, expected = [1, 2, 3], "one to three run ids beside baseline"
        different = len(set(ids)) == len(ids) in counts
        if self.runs is not None and not (different and all(map(RUN_ID.fullmatch, ids))):
            raise ConfigError(
                f"runs={self.runs!r} is not allowed: expected {expected}, each of 4 to 32 hexadecimal digits."
            )

    @property
    def price_of(self) -> dict[str, float]:
        """USD per GPU hour by the name of the GPU, or a part of it."""
        pairs = (part.rpartition("=") for part in self.prices.split(",")) if self.prices else ()
        return {name.strip(): float(price) for name, _, price in pairs}

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.runs.split(",")) if self.runs else ()

    @property
    def scope(self) -> str:
        """The experiments and filters in words."""
        where = f"experiment(s) {self.experiments}" if self.experiments else "every experiment"
        narrowed = [f"{n}={getattr(self, n)}" for n in ("filter", "gpu", "model") if getattr(self, n) is not None]
        return f"{where} with {', '.join(narrowed)}" if narrowed else where


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig(Options):
    """Options of the upload of result directories."""

    # fmt: off
    bundles: str = option("results", PATH,
        "A result directory, a directory that holds several, or a quoted pattern such as 'results/20261122*'.", "Runs")
    # fmt: on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig(Options):
    """Options of the checks before a run."""

    model: str = field_of(OPTIONS["model"])
    model_revision: str = field_of(OPTIONS["model_revision"])
    corpus: str = field_of(OPTIONS["corpus"])
    split: str = field_of(OPTIONS["split"])
    ray_address: str | None = field_of(OPTIONS["ray_address"])
    results_dir: str = field_of(OPTIONS["results_dir"])
    json: bool = option(False, BOOLEAN, "Print one JSON list instead of lines.", "Output")
