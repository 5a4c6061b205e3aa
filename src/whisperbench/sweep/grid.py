"""Lists, or a YAML file, become configurations in order, with names; pure functions.

A grid file is a list of entries.  An entry maps options of the benchmark to a value or to a list of
values, and stands for their full product; what it does not name comes from the command line:

    - {model: [large-v3, large-v3-turbo], kv_cache_dtype: auto, max_num_seqs: 128}
    - {model: large-v3, kv_cache_dtype: fp8, max_num_seqs: [128, 256], dtype: bfloat16}
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from whisperbench.config.benchmark import MAIN, NOT_PART_OF_A_CONFIGURATION, BenchmarkConfig
from whisperbench.config.option import text_of
from whisperbench.config.sweep import LISTS, SweepOptions
from whisperbench.errors import ConfigError
from whisperbench.results.run_name import setting_name

GRIDS = Path(__file__).parents[1] / "data" / "grids"
OF_THE_SWEEP = {
    "repeats": "give it to the sweep, which interleaves them",
    "results_dir": "give it to the sweep",
    "offline": "without a tracking server a sweep cannot tell what is done",
}
IN_THE_NAME = frozenset(
    {
        "model",
        "kv_cache_dtype",
        "max_num_seqs",
        "engine",
        "front_end",
        "batch_size",
        "padding_stride",
        "engines_per_gpu",
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One run of a sweep: a configuration and which repeat of it this is, counted from 1."""

    config: BenchmarkConfig
    repeat: int
    name: str

    def without_cluster(self) -> Task:
        """The same run on one node alone, for a process that is started there."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, ray_address="none"))


def configurations_of(options: SweepOptions) -> tuple[BenchmarkConfig, ...]:
    """Every configuration of the grid, once, in the order given: the last list turns fastest.

    Raises:
        ConfigError: a combination is not allowed, or stands there twice; or the grid file is not one.
    """
    lists = {LISTS[name]: _list(options, name) for name in LISTS}
    entries = [{}] if options.grid == "none" else read_grid(options.grid)
    configurations = [config for entry in entries for config in _product(options, lists, entry)]
    counts = Counter(config.digest for config in configurations)
    for config in configurations:
        if counts[config.digest] > 1:
            raise ConfigError(f"{setting_name(config)} stands {counts[config.digest]} times in grid={options.grid}.")
    return tuple(configurations)


def read_grid(grid: str) -> list[Mapping[str, list[str]]]:
    """The entries of a grid file, or of a grid of the package.

    Raises:
        ConfigError: there is none, or it is not a list of entries.
    """
    import yaml

    packaged = {path.stem: path for path in GRIDS.glob("*.yaml")}
    path = packaged.get(grid) or Path(grid)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        known = ", ".join(sorted(packaged))
        raise ConfigError(f"grid={grid} cannot be read ({reason}). Give a YAML file, or one of: {known}.") from error
    if not isinstance(found, list) or not found or not all(isinstance(entry, dict) and entry for entry in found):
        raise ConfigError(
            f"grid={grid}: expected a list of entries such as '- {{model: large-v3, max_num_seqs: [128, 256]}}'."
        )
    for number, entry in enumerate(found, 1):
        for name, value in entry.items():
            if name not in MAIN:
                raise ConfigError(f"grid={grid}, entry {number}: {name!r} is not an option of the benchmark.")
            if name in OF_THE_SWEEP:
                raise ConfigError(
                    f"grid={grid}, entry {number}: {name} is not a setting to compare; {OF_THE_SWEEP[name]}."
                )
            if value == []:
                raise ConfigError(f"grid={grid}, entry {number}: {name} has no value.")
    return [{name: _texts(value) for name, value in entry.items()} for entry in found]


def schedule(configurations: Sequence[BenchmarkConfig], repeats: int, order: str, seed: int) -> tuple[Task, ...]:
    """Rounds over all configurations, a b a b, so that drift does not favour one; random shuffles each round."""
    names = names_of(configurations)
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    tasks: list[Task] = []
    for repeat in range(1, repeats + 1):
        found = [Task(config, repeat, names[config.digest]) for config in configurations]
        if order == "random":
            generator.shuffle(found)
        tasks += found
    return tuple(tasks)


def on_every_type(tasks: Sequence[Task], types: Sequence[str]) -> tuple[Task, ...]:
    """Each task once per GPU type; with several types, its name ends with the type."""

    def on(task: Task, gpu_type: str) -> Task:
        name = task.name if len(types) == 1 else f"{task.name}-{gpu_type.replace(' ', '-')}"
        return dataclasses.replace(task, config=dataclasses.replace(task.config, gpu_kinds=gpu_type), name=name)

    return tuple(on(task, gpu_type) for task in tasks for gpu_type in types) if types else tuple(tasks)


def names_of(configurations: Iterable[BenchmarkConfig]) -> dict[str, str]:
    """A name by config digest: model, cache and sequences, and whatever else differs within the grid."""
    params = {config.digest: (config, config.as_params()) for config in configurations}
    varying = [
        name
        for name in MAIN
        if name not in IN_THE_NAME | NOT_PART_OF_A_CONFIGURATION and len({p[name] for _, p in params.values()}) > 1
    ]
    names = {
        digest: "-".join([setting_name(config), *(values[name].rstrip("/").rpartition("/")[2] for name in varying)])
        for digest, (config, values) in params.items()
    }
    counts = Counter(names.values())  # two directories may end alike
    return {digest: name if counts[name] == 1 else f"{name}-{digest[:6]}" for digest, name in names.items()}


def sweep_digest(configurations: Iterable[BenchmarkConfig], **more: object) -> str:
    """16 hexadecimal digits that the same sweep, started again, has too."""
    said = {"configurations": sorted(config.digest for config in configurations), **more}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _product(
    options: SweepOptions, lists: Mapping[str, tuple[str, ...]], entry: Mapping[str, list[str]]
) -> list[BenchmarkConfig]:
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    spelled = {name: option_name for option_name, name in LISTS.items()}
    for name in entry:
        given = spelled.get(name, name)
        if given in defaults and getattr(options, given) != defaults[given]:
            raise ConfigError(f"{given}={getattr(options, given)} and grid={options.grid} both say what {name} is.")
    axes = {**{name: (value,) for name, value in options.common.items()}, **lists, **entry}
    names = [*lists, *(name for name in axes if name not in lists)]
    combinations = (dict(zip(names, values, strict=True)) for values in itertools.product(*(axes[n] for n in names)))
    return [BenchmarkConfig.from_params(combination) for combination in combinations]


def _list(options: SweepOptions, name: str) -> tuple[str, ...]:
    values = options.values(name)
    if not isinstance(values, tuple):
        raise TypeError(f"{name} is a range: a search has no grid")
    return values


def _texts(value: object) -> list[str]:
    return [text_of(each) for each in value] if isinstance(value, list) else [text_of(value)]
