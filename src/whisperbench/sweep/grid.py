"""Configurations of a sweep and their names, from lists of values or from a YAML file; pure functions.

A grid file is a list of entries.  An entry maps options of the benchmark to a value or to a list of
values, and describes their full product; options that it does not name come from the command line:

    - {model: [large-v3, large-v3-turbo], kv_cache_dtype: auto, max_num_seqs: 128}
    - {model: large-v3, kv_cache_dtype: fp8, max_num_seqs: [128, 256], dtype: bfloat16}
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.sweep import SweepConfig, require_engine_with
from whisperbench.errors import ConfigError
from whisperbench.results.run_name import data_label, setting_name

GRIDS = Path(__file__).parents[1] / "data" / "grids"


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One run of a sweep: a configuration and the number of its repeat, counted from 1."""

    config: BenchmarkConfig
    repeat: int
    name: str


def configurations_of(
    options: SweepConfig, say: Callable[[str], None] = lambda _sentence: None
) -> tuple[BenchmarkConfig, ...]:
    """Every configuration of the grid, once, in the order of the lists; the values of the last list vary fastest.

    An option that the engine of a configuration does not have is reset to its default.  Configurations that become
    equal are measured once, and `say` is called with their number in a sentence.

    Raises:
        ConfigError: a combination is not allowed or is listed twice, or the grid file is not valid.
    """
    entries = [{}] if options.grid is None else read_grid(options.grid, options)
    known = options.benchmark.declared()
    engines = {engine for entry in entries for engine in entry.get("engine", options.texts("engine"))}
    require_engine_with(known, {name: options.text(name) for name in options.axes}, engines)
    found: dict[str, BenchmarkConfig] = {}
    listed: Counter[str] = Counter()
    merged = 0
    for entry in entries:
        axes = {name: entry.get(name, options.texts(name)) for name in options.of_benchmark()}
        for values in itertools.product(*axes.values()):
            texts = dict(zip(axes, values, strict=True)) | {"repeats": str(options.repeats_in_a_run)}
            config = options.benchmark.for_engine(texts)
            reset = any(not known[n].has(config.engine) and t != known[n].default_text for n, t in texts.items())
            merged += reset and config.digest in found
            listed[config.digest] += not reset
            found.setdefault(config.digest, config)
    for digest, config in found.items():
        if listed[digest] > 1:
            raise ConfigError(f"The grid lists {setting_name(config)} {listed[digest]} times. List it once.")
    if merged:
        say(f"Left out {merged} configuration(s) that differ only in options that their engine does not have.")
    return tuple(found.values())


def read_grid(grid: str, options: SweepConfig) -> list[Mapping[str, list[str]]]:
    """The entries of a grid file, or of a grid of the package by its name.

    Raises:
        ConfigError: the grid was not found, or it is not a list of entries.
    """
    import yaml

    packaged = {path.stem: path for path in GRIDS.glob("*.yaml")}
    path = packaged.get(grid) or Path(os.path.expanduser(grid))  # noqa: PTH111 - unlike Path.expanduser it cannot raise
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
    known = options.benchmark.declared()
    for number, entry in enumerate(found, 1):
        where = f"grid={grid}, entry {number}"
        for name, value in entry.items():
            if name not in known:
                raise ConfigError(f"{where}: {name!r} is not an option of the benchmark.")
            if known[name].sweep != "list":
                raise ConfigError(f"{where}: {name} cannot vary. Remove it, or give it as an option of the sweep.")
            if value == []:
                raise ConfigError(f"{where}: {name} has no value.")
            if name in options.axes:
                raise ConfigError(
                    f"{where}: {name} is also an option of the sweep, {name}={options.text(name)}. Remove one."
                )
    entries: list[Mapping[str, list[str]]] = [{name: _texts(v) for name, v in entry.items()} for entry in found]
    for texts in entries:
        joined = {name: ",".join(values) for name, values in texts.items()}
        require_engine_with(known, joined, texts.get("engine", options.texts("engine")))
    return entries


def schedule(configurations: Sequence[BenchmarkConfig], repeats: int, order: str, seed: int) -> tuple[Task, ...]:
    """The tasks with their repeats interleaved (a b a b), so that drift affects all configurations alike.

    With the order `random`, each repeat has another order.
    """
    names = names_of(configurations)
    generator = random.Random(seed)  # noqa: S311 - not for cryptography
    tasks: list[Task] = []
    for repeat in range(1, repeats + 1):
        found = [Task(config, repeat, names[config.digest]) for config in configurations]
        if order == "random":
            generator.shuffle(found)
        tasks += found
    return tuple(tasks)


def on_every_type(tasks: Sequence[Task], types: Sequence[str]) -> tuple[Task, ...]:
    """Each task once per GPU type.  If several types exist, the name of a task ends with its type."""

    def on(task: Task, gpu_type: str) -> Task:
        name = task.name if len(types) == 1 else f"{task.name}-{gpu_type.replace(' ', '-')}"
        return dataclasses.replace(task, config=dataclasses.replace(task.config, gpu_type=gpu_type), name=name)

    return tuple(on(task, gpu_type) for task in tasks for gpu_type in types) if types else tuple(tasks)


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
