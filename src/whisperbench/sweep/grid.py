"""Configurations of a sweep and their names, from lists of values or from a YAML file; pure functions.

A grid file is a list of entries.  An entry maps options of the benchmark to a value or to a list of
values, and describes their full product; options that it does not name come from the command line:

    - {model: [large-v3, large-v3-turbo], kv_cache_dtype: auto, max_num_seqs: 128}
    - {model: large-v3, kv_cache_dtype: fp8, max_num_seqs: [128, 256], dtype: bfloat16}
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig, require_engine_with
from whisperbench.config.option import absolute
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ConfigError
from whisperbench.results.run_name import data_label, setting_name
from whisperbench.sweep.progress import PlannedRun

GRIDS = Path(__file__).parents[1] / "data" / "grids"


def configurations_of(
    options: SweepConfig, say: Callable[[str], None] = lambda _sentence: None
) -> tuple[BenchmarkConfig, ...]:
    """Every configuration of the grid, once, in the order of the lists; the values of the last list vary fastest.

    An option that the engine of a configuration does not have is reset to its default.  Equal configurations are
    measured once, and `say` is called with their number in a sentence.

    Raises:
        ConfigError: a combination is not allowed, or the grid file is not valid.
    """
    found: dict[str, BenchmarkConfig] = {}
    count = 0
    entries: list[dict[str, list[str]]] = [{}] if options.grid is None else read_grid(options.grid, options)
    for entry in entries:
        axes = {name: entry.get(name, options.texts(name)) for name in options.of_benchmark()}
        for values in itertools.product(*axes.values()):
            config = options.benchmark.for_engine(dict(zip(axes, values, strict=True)))
            found.setdefault(config.digest, config)
            count += 1
    if count > len(found):
        left_out = f"Left out {count - len(found)} configuration(s) that equal another one"
        say(f"{left_out}. An option that an engine does not have is ignored for it.")
    return tuple(found.values())


def read_grid(grid: str, options: SweepConfig) -> list[dict[str, list[str]]]:
    """The entries of a grid file, or of a grid of the package by its name.

    Raises:
        ConfigError: the grid was not found, or it is not a list of entries.
    """
    import yaml

    packaged = {path.stem: path for path in GRIDS.glob("*.yaml")}
    path = packaged.get(grid) or Path(absolute(grid))
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        names = ", ".join(sorted(packaged))
        raise ConfigError(f"grid={grid} cannot be read ({reason}). Give a YAML file, or one of: {names}.") from error
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) and entry for entry in found):
        raise ConfigError(
            f"grid={grid}: expected a list of entries such as '- {{model: large-v3, max_num_seqs: [128, 256]}}'."
        )
    known, entries = options.of_benchmark(), []
    for number, entry in enumerate(found, 1):
        where = f"grid={grid}, entry {number}"
        for name, value in entry.items():
            if name not in known or known[name].sweep != "list":
                raise ConfigError(f"{where}: {name} is not an option that a grid can vary. Remove it.")
            if value == []:
                raise ConfigError(f"{where}: {name} has no value.")
            if name in options.given:
                raise ConfigError(
                    f"{where}: {name} is also an option of the sweep, {name}={options.given[name]}. Remove one."
                )
        texts = {name: _texts(value) for name, value in entry.items()}
        joined = {name: ",".join(values) for name, values in texts.items()}
        require_engine_with(known, joined, texts.get("engine", options.texts("engine")))
        entries.append(texts)
    engines = {engine for entry in entries for engine in entry.get("engine", options.texts("engine"))}
    require_engine_with(known, options.given, engines)
    return entries


def schedule(configurations: Sequence[BenchmarkConfig], repeats: int, order: str, seed: int) -> list[PlannedRun]:
    """The runs with their repeats interleaved (a b a b), so that drift affects all configurations alike.

    With the order `random`, each repeat has another order.
    """
    names = names_of(configurations)
    generator = random.Random(seed)  # noqa: S311 - not for cryptography
    runs: list[PlannedRun] = []
    for repeat in range(1, repeats + 1):
        found = [PlannedRun(config, names[config.digest], repeat) for config in configurations]
        if order == "random":
            generator.shuffle(found)
        runs += found
    return runs


def names_of(configurations: Iterable[BenchmarkConfig]) -> dict[str, str]:
    """Names by config digest: the model and its settings, followed by the data if they differ within the grid."""
    configs = {config.digest: config for config in configurations}
    data = {digest: data_label(config) for digest, config in configs.items()}
    several = len(set(data.values())) > 1
    names = {
        d: f"{setting_name(config)}-{data[d]}" if several else setting_name(config) for d, config in configs.items()
    }
    counts = Counter(names.values())  # the names of two directories may be equal
    return {digest: name if counts[name] == 1 else f"{name}-{digest[:6]}" for digest, name in names.items()}


def sweep_digest(configurations: Iterable[BenchmarkConfig], **more: object) -> str:
    """16 hexadecimal digits that identify a sweep when it is started again."""
    fields = {"configurations": sorted(config.digest for config in configurations), **more}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _texts(value: object) -> list[str]:
    """The values of an option in a grid file, in the spelling of the command line."""
    values = value if isinstance(value, list) else [value]
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]
