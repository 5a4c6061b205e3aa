"""GPUs and engines compared at equal settings, and each of them at its best setting."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from whisperbench.compare.document import NOT_MEASURED, Cell, Table, number
from whisperbench.compare.rank import Leaderboard, best_of, sort_key
from whisperbench.compare.systems import System
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.compare import SORTINGS
from whisperbench.results.record import RunIdentity

FASTEST = SORTINGS["reqs_per_sec"]
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
    others = (
        each.text(each.default) if (value := system.requested(each)) is None else value
        for name, each in OPTIONS.items()
        if each.identity and name not in ("engine", "dtype", *CONCURRENCY)
    )
    concurrency = system.param("max_num_seqs") if system.uses_vllm else system.param("batch_size")
    return system.revision, system.param("dtype"), concurrency, *others


def _comparison(
    boards: Iterable[Leaderboard],
    compared: Callable[[System], str],
    within: Callable[[System], Hashable],
    equal: Callable[[System], Hashable],
) -> Table:
    """A row for each value of `compared`, in each group of equal `within` that has several values.

    Settings with the same key `equal` are equal.  The one that most values have is shown, of several the fastest.
    """
    rows: list[list[Cell]] = []
    for board in boards:
        timed = [row.system for row in board.rows if row.system.median(FASTEST.metric)]
        for group in _grouped(sorted(timed, key=lambda s: sort_key(s, FASTEST)), within):
            values = list(dict.fromkeys(map(compared, group)))
            if len(values) < 2:
                continue
            alike = max(_grouped(group, equal), key=lambda systems: len(set(map(compared, systems))))
            shared = {compared(s): s for s in reversed(alike)} if len(set(map(compared, alike))) > 1 else {}
            best = {value: best_of(board, [s for s in group if compared(s) == value], FASTEST) for value in values}
            for value in sorted(
                values, key=lambda value: (value not in shared, sort_key(shared.get(value, best[value]), FASTEST))
            ):
                first = best[value]
                names: list[Cell] = [first.model, first.gpu, first.engine]
                rows.append([*names, *_figures(shared.get(value), shared.values()), *_figures(first, best.values())])
    headings = ["model", "gpu", "engine", "equal settings", "reqs/sec", "% of fastest", "best setting", "reqs/sec"]
    return Table([*headings, "% of fastest"], rows, frozenset({4, 5, 7, 8}))


def _figures(system: System | None, others: Iterable[System]) -> list[Cell]:
    """The setting, its rate, and the rate in percent of the fastest of `others`."""
    if system is None:
        return [NOT_MEASURED] * 3
    rate = system.median(FASTEST.metric) or 0.0
    fastest = max(other.median(FASTEST.metric) or 0.0 for other in others)
    return [system.description, number(rate), f"{100 * rate / fastest:.0f} %"]


def _grouped(systems: Iterable[System], key: Callable[[System], Hashable]) -> list[list[System]]:
    """Lists of systems with equal keys; the order is kept."""
    found: dict[Hashable, list[System]] = {}
    for system in systems:
        found.setdefault(key(system), []).append(system)
    return list(found.values())
