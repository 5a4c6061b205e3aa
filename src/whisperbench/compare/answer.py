"""The short answer of a comparison: the cheapest, the fastest and the most accurate choice, and one row per GPU."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence

from whisperbench.compare.columns import COLUMNS, Column, noise_of, verdict_of
from whisperbench.compare.document import Heading, Part, Table, counted, number
from whisperbench.compare.rank import Leaderboard, Row, answer_sort, best_settings, sort_key
from whisperbench.compare.systems import System
from whisperbench.config.compare import SORTINGS
from whisperbench.results.run_name import short_gpu
from whisperbench.stats.rates import rate_difference

MAX_LINES, WIDTH = 20, 80
"""Maximum number of lines of the answer, on a terminal of so many columns."""
OTHER_LINES = 4
"""Lines of the heading, of the table's two heading lines, and of the note on columns that do not fit."""
ALWAYS = ("model", "gpu", "setting", "wer", "cer")
"""Columns that are shown at any width, beside the sort column."""
CHOICES = {"cost": "cheapest", "reqs_per_sec": "fastest", "energy": "most economical"}

BY_NAME = {column.name: column for column in COLUMNS}


def answer(board: Leaderboard, heading: str, footer: str) -> list[Part]:
    """The heading, the best choices in one sentence, the best setting of each model and GPU, and the footer."""
    rows = best_settings(board)
    sentence = choices(board, rows)
    if (reference := board.verdicts.reference) and any(row.verdict for row in rows):
        setting = f"{reference.label} on {short_gpu_names(board)[reference.gpu]}"
        footer = f"Accuracy is compared with {setting}, margin {board.verdicts.margin:g} points. {footer}"
    texts = [text for text in (sentence, f"999 more rows. {footer}") if text]
    lines = OTHER_LINES + sum(len(textwrap.wrap(text, WIDTH)) for text in texts)
    shown = rows[: MAX_LINES - lines]
    more = f"{counted(len(rows) - len(shown), 'more row')}. " if len(shown) < len(rows) else ""
    return [Heading([heading], 1), *([sentence] if sentence else []), table(board, shown), f"{more}{footer}"]


def table(board: Leaderboard, rows: Sequence[Row]) -> Table:
    """The rows with the columns that have values; those of ALWAYS and the sort column are shown at any width."""
    gpus = short_gpu_names(board)
    metric = SORTINGS[answer_sort(board)].metric
    usd, energy = "usd_per_audio_hour", "energy_wh_per_audio_hour"
    cost = usd if board.group.has(usd) and metric != energy else energy

    def accuracy(row: Row) -> str:
        best = "reference" if board.verdicts.named else "best"
        return best if row.is_reference else verdict_of(row) if row.verdict else ""

    def rate(row: Row) -> str:
        value = row.system.median("reqs_per_sec")
        return number(value, 2 if value and value < 100 else 1) + noise_of(row)

    columns = (
        BY_NAME["model"],
        Column("gpu", "GPU", lambda row: gpus[row.system.gpu]),
        Column("setting", "setting", lambda row: row.system.description),
        BY_NAME["wer"],
        BY_NAME["cer"],
        Column("accuracy", "accuracy", accuracy, shown="if known"),
        Column("reqs_per_sec", "reqs/s", rate, numeric=True),
        BY_NAME["n"],
        dataclasses.replace(BY_NAME[cost], heading="¢/hour" if cost == usd else "Wh/hour", shown="if known"),
        Column("rtfx", "RTFx", lambda row: number(row.system.median("rtfx"), 0), numeric=True),
    )
    shown = [each for each in columns if each.is_shown(board.rows) or each.name == metric != "wer"]
    return Table(
        [column.heading for column in shown],
        [[column.text(row) for column in shown] for row in rows],
        frozenset(place for place, column in enumerate(shown) if column.numeric),
        frozenset(place for place, column in enumerate(shown) if column.name in (*ALWAYS, metric)),
    )


def choices(board: Leaderboard, rows: Sequence[Row]) -> str:
    """A sentence with the cheapest, fastest and most accurate choice, and the ones not shown to differ from it."""
    systems, gpus = [row.system for row in rows], short_gpu_names(board)

    def name(system: System) -> str:
        return f"{system.model} on {gpus[system.gpu]}"

    # A choice may be best twice: its kinds and figures, by the choice and the doubt about it.
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    ordered = {sort: _best_first(systems, sort) for sort in CHOICES if sort != "energy" or answer_sort(board) == sort}
    for sort, (best, *others) in ((sort, measured) for sort, measured in ordered.items() if measured):
        doubt = _speed_doubt(best, others, sort, name)
        found.setdefault((name(best), doubt), []).append((CHOICES[sort], figure(best, sort)))
    accurate = min((s for s in systems if s.wer is not None), key=lambda s: s.wer or 0.0, default=None)
    if accurate:
        kind = "most accurate", f"{accurate.wer:.2f} % {accurate.error_rate}"
        found[accurate.model, _accuracy_doubt(board, accurate, systems)] = [kind]
    clauses = [
        f"{_joined(kind for kind, _ in kinds)} is {who} ({', '.join(value for _, value in kinds)}){doubt}"
        for (who, doubt), kinds in found.items()
    ]
    sort = answer_sort(board)
    if accurate and (first := ordered.get(sort)):
        as_accurate = [system for system in first if _keeps_margin(board, system, accurate)]
        if as_accurate and as_accurate[0] is not first[0]:
            best = as_accurate[0]
            clauses.append(f"{CHOICES[sort]} with that accuracy is {name(best)} ({figure(best, sort)})")
    sentence = "; ".join(clauses)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def short_gpu_names(board: Leaderboard) -> dict[str, str]:
    """`H100` for `NVIDIA H100 80GB HBM3`: up to the first word with a digit, if the names of all GPUs then differ."""
    found = {}
    for system in (row.system for row in board.rows):
        words = short_gpu(system.newest.gpu).split()
        end = next((place for place, word in enumerate(words, 1) if any(map(str.isdigit, word))), len(words))
        count = f"{system.gpu_count} × " if system.gpu_count > 1 else ""
        found[system.gpu] = count + " ".join(words[:end])
    names = list(found.values())
    return {gpu: name if names.count(name) == 1 else gpu for gpu, name in found.items()}


def figure(system: System, sort: str) -> str:
    """`99.40 requests/s`, `0.152 ¢ per audio hour`, `1.25 Wh per audio hour`."""
    value = system.median(SORTINGS[sort].metric) or 0.0
    match sort:
        case "cost":
            return f"{100 * value:.3f} ¢ per audio hour"
        case "energy":
            return f"{value:.2f} Wh per audio hour"
    return f"{value:,.{2 if value < 100 else 1}f} requests/s"


def _best_first(systems: Iterable[System], sort: str) -> list[System]:
    """The systems for which the metric of `sort` was measured, the best first."""
    measured = [system for system in systems if system.median(SORTINGS[sort].metric) is not None]
    return sorted(measured, key=lambda system: sort_key(system, SORTINGS[sort]))


def _speed_doubt(best: System, others: Sequence[System], sort: str, name: Callable[[System], str]) -> str:
    """A clause with the rows whose rate is not shown to differ from the best, at a level that holds for all pairs."""
    pairs = max(1, len(others) * (len(others) + 1) // 2)
    rates = {system: system.by_run(SORTINGS[sort].metric) for system in (best, *others)}
    alike = []
    for other in others:
        noise = [rates[system] for system in others if system is not other]
        found = rate_difference(rates[other], rates[best], others=noise, comparisons=pairs)
        if found and found.interval is None:
            return ", measured once"  # so were all others
        if found and found.interval and found.interval.low <= 0 <= found.interval.high:
            alike.append(name(other))
    if not alike:
        return ""
    more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
    return f", which the noise does not separate from {alike[0]}{more}"


def _keeps_margin(board: Leaderboard, system: System, best: System) -> bool:
    """Whether a system is the most accurate one, or is shown not to be worse than it by more than the margin."""
    found = board.verdicts.against(system, best)
    return system is best or (found is not None and found.keeps_margin)


def _accuracy_doubt(board: Leaderboard, best: System, systems: Iterable[System]) -> str:
    """A clause with the other models that are not shown to be less accurate."""
    others = [system for system in systems if system.model_id != best.model_id and system.wer is not None]
    found = {other: board.verdicts.against(other, best) for other in others}
    alike = [other.model for other, verdict in found.items() if verdict is None or verdict.outcome != "worse"]
    return f", with no difference shown to {_joined(dict.fromkeys(alike))}" if alike else ""


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
