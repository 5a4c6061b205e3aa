"""GPUs and engines compared at equal settings, and each of them at its best setting."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from whisperbench.compare.document import NOT_MEASURED, Cell, Table, number
from whisperbench.compare.rank import FASTEST, Leaderboard, best_of, sort_key
from whisperbench.compare.systems import System
from whisperbench.config.benchmark import OPTIONS
from whisperbench.results.record import RunIdentity

Key = TypeVar("Key")

CONCURRENCY = ("batch_size", "max_num_seqs")
"""Options that set how many utterances an engine decodes concurrently; an engine has one of them."""


def gpu_comparison(boards: Iterable[Leaderboard]) -> Table:
    """Each model on several GPUs with one configuration and engine version, and with the best setting of each GPU."""
    return _comparison(boards, lambda s: s.gpu, lambda s: (s.model_id, s.newest.random_weights), _configuration)


def engine_comparison(boards: Iterable[Leaderboard]) -> Table:
    """Each model on one GPU with several engines or versions of one, at equal settings, and the best of each engine."""
    return _comparison(boards, lambda s: s.engine, lambda s: (s.model_id, s.newest.random_weights, s.gpu), _settings)


def _configuration(system: System) -> Hashable:
    identity = RunIdentity.of(system.newest.params, system.newest.tags)
    return identity.config_digest, identity.model_revision, identity.engine_version, identity.cuda_mps


def _settings(system: System) -> Hashable:
    """Settings that engines share: precision, concurrency, and the other options, at their defaults if it lacks them.

    An engine with thinned padding, a quantised KV cache or quantised weights does not equal an engine without them.
    """
    others = [
        system.requested(each) or each.default_text
        for name, each in OPTIONS.items()
        if each.identity and name not in ("engine", "dtype", *CONCURRENCY)
    ]
    concurrency = [system.param(name) for name in CONCURRENCY if OPTIONS[name].has(system.engine_name)]
    return system.param("model_revision_resolved"), system.param("dtype"), *concurrency, *others


def _comparison(
    boards: Iterable[Leaderboard],
    compared: Callable[[System], str],
    within: Callable[[System], Hashable],
    equal: Callable[[System], Hashable],
) -> Table:
    """A row for each GPU or engine (`compared`), if several of them measured the same model (`within`).

    It has the rate at settings that are equal on most of the GPUs or engines (of several such settings the fastest),
    and the rate at its own best setting.
    """
    rows: list[list[Cell]] = []
    for board in boards:
        timed = [row.system for row in board.rows if row.system.median(FASTEST.metric)]
        fastest_first = sorted(timed, key=lambda system: sort_key(system, FASTEST))
        for group in _grouped(fastest_first, within).values():
            by_name = _grouped(group, compared)
            if len(by_name) > 1:
                best = {name: best_of(board, systems, FASTEST) for name, systems in by_name.items()}
                shared = _at_equal_settings(group, compared, equal)
                for name in dict.fromkeys((*shared, *best)):
                    names: list[Cell] = [best[name].model, best[name].gpu, best[name].engine]
                    rows.append([*names, *_figures(shared, name), *_figures(best, name)])
    headings = ["model", "gpu", "engine", "equal settings", "reqs/sec", "% of fastest", "best setting", "reqs/sec"]
    return Table([*headings, "% of fastest"], rows, frozenset({4, 5, 7, 8}))


def _at_equal_settings(
    systems: Iterable[System], compared: Callable[[System], str], equal: Callable[[System], Hashable]
) -> dict[str, System]:
    """The fastest system of each GPU or engine at the settings that most of them have; none if they share no settings.

    `systems` and the result are ordered by speed, the fastest first.
    """
    candidates = [_grouped(alike, compared) for alike in _grouped(systems, equal).values()]
    most = max(candidates, key=len)
    return {name: found[0] for name, found in most.items()} if len(most) > 1 else {}


def _figures(systems: Mapping[str, System], name: str) -> list[Cell]:
    """The setting of a GPU or engine, its rate, and the rate in percent of the fastest of `systems`."""
    if name not in systems:
        return [NOT_MEASURED] * 3
    rates = {each: system.median(FASTEST.metric) or 0.0 for each, system in systems.items()}
    return [systems[name].description, number(rates[name]), f"{100 * rates[name] / max(rates.values()):.0f} %"]


def _grouped(systems: Iterable[System], key: Callable[[System], Key]) -> dict[Key, list[System]]:
    """Lists of systems by key, in the order of the systems."""
    found: dict[Key, list[System]] = {}
    for system in systems:
        found.setdefault(key(system), []).append(system)
    return found
