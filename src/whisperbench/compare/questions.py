"""What a reader asks of several engines or GPUs: which engine on this GPU, which GPU for this engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from whisperbench.compare.systems import System
from whisperbench.compare.tables import Section, Table, number

HEADINGS = ("reqs/sec", "of the first", "RTFx", "WER %")


def engine_sections(boards: Iterable[Sequence[System]]) -> list[Section]:
    """A table for each GPU and model with several engines, and for each engine and model on several GPUs.

    Each board's systems share their data; of each engine or GPU it is the fastest setting that stands in the table.
    """
    found = []
    for systems in boards:
        timed = [system for system in systems if system.median("reqs_per_sec")]
        for (gpu, model, _), rivals in _grouped(timed, lambda s: (s.gpu, s.model, s.newest.random_weights)).items():
            if (table := _fastest("engine", rivals, lambda s: s.engine)).rows[1:]:
                found.append(Section(f"Which engine on {gpu}: {model}", table))
        for (engine, model, _), rivals in _grouped(
            timed, lambda s: (s.engine, s.model, s.newest.random_weights)
        ).items():
            if (table := _fastest("gpu", rivals, lambda s: s.gpu)).rows[1:]:
                found.append(Section(f"Which GPU for {engine}: {model}", table))
    return found


def _grouped(
    systems: Iterable[System], key: Callable[[System], tuple[str, str, bool]]
) -> dict[tuple[str, str, bool], list[System]]:
    found: defaultdict[tuple[str, str, bool], list[System]] = defaultdict(list)
    for system in systems:
        found[key(system)].append(system)
    return found


def _fastest(heading: str, systems: Iterable[System], name: Callable[[System], str]) -> Table:
    """The fastest system of each name, the fastest name first."""
    ordered = sorted(systems, key=lambda s: -(s.median("reqs_per_sec") or 0))
    first: dict[str, System] = {}
    for system in ordered:
        first.setdefault(name(system), system)
    top = ordered[0].median("reqs_per_sec") or 1
    rows = [
        [
            key,
            system.setting,
            number(rate := system.median("reqs_per_sec")),
            f"{100 * (rate or 0) / top:.0f} %",
            number(system.median("rtfx"), 1),
            number(system.wer),
        ]
        for key, system in first.items()
    ]
    return Table([heading, "settings", *HEADINGS], rows, frozenset({2, 3, 4, 5}))
