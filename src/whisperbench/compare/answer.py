"""The short answer of a comparison: the cheapest, the fastest and the most accurate choice, and one row per GPU."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Sequence

from whisperbench.compare.columns import COLUMNS, Column, noise_of, verdict_of
from whisperbench.compare.document import Heading, Paragraph, Part, Table, counted, number
from whisperbench.compare.rank import Leaderboard, Row, answer_sort, best_settings, sort_key
from whisperbench.compare.systems import System
from whisperbench.config.compare import SORTINGS, Sorting
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
        setting = f"{reference.label} on {short_gpu_names(row.system for row in board.rows)[reference.gpu]}"
        footer = f"Accuracy is compared with {setting}, margin {board.verdicts.margin:g} points. {footer}"
    texts = [text for text in (sentence, f"999 more rows. {footer}") if text]
    lines = OTHER_LINES + sum(len(textwrap.wrap(text, WIDTH)) for text in texts)
    shown = rows[: MAX_LINES - lines]
    more = f"{counted(len(rows) - len(shown), 'more row')}. " if len(shown) < len(rows) else ""
    return [
        Heading([heading], 1),
        *([Paragraph(sentence)] if sentence else []),
        table(board, shown),
        Paragraph(f"{more}{footer}"),
    ]


def table(board: Leaderboard, rows: Sequence[Row]) -> Table:
    """The rows with the columns that have values; those of ALWAYS and the sort column are shown at any width."""
    gpus = short_gpu_names(row.system for row in board.rows)
    metric = SORTINGS[answer_sort(board)].metric
    usd, energy = "usd_per_audio_hour", "energy_wh_per_audio_hour"
    cost = usd if board.group.has(usd) and metric != energy else energy
    columns = {
        "model": BY_NAME["model"],
        "gpu": Column("gpu", "GPU", lambda row: gpus[row.system.gpu]),
        "setting": Column("setting", "setting", lambda row: row.system.description),
        "wer": BY_NAME["wer"],
        "cer": BY_NAME["cer"],
        "accuracy": Column("accuracy", "accuracy", lambda row: _short_verdict(board, row), shown="if known"),
        "reqs_per_sec": Column("reqs_per_sec", "reqs/s", _rate, numeric=True),
        "n": BY_NAME["n"],
        cost: dataclasses.replace(BY_NAME[cost], heading="¢/hour" if cost == usd else "Wh/hour", shown="if known"),
        "rtfx": Column("rtfx", "RTFx", lambda row: number(row.system.median("rtfx"), 0), numeric=True),
    }
    shown = {name: column for name, column in columns.items() if column.is_shown(board.rows) or name == metric != "wer"}
    return Table(
        [column.heading for column in shown.values()],
        [[column.text(row) for column in shown.values()] for row in rows],
        frozenset(place for place, column in enumerate(shown.values()) if column.numeric),
        frozenset(place for place, name in enumerate(shown) if name in (*ALWAYS, metric)),
    )


def choices(board: Leaderboard, rows: Sequence[Row]) -> str:
    """A sentence with the cheapest, fastest and most accurate choice, and the ones not shown to differ from it."""
    gpus = short_gpu_names(row.system for row in board.rows)

    def name(system: System) -> str:
        return f"{system.model} on {gpus[system.gpu]}"

    parts: dict[tuple[str, str], list[tuple[str, str]]] = {}
    scored = sorted((row.system.wer, place) for place, row in enumerate(rows) if row.system.wer is not None)
    accurate = rows[scored[0][1]].system if scored else None
    as_accurate = [row for row in rows if accurate and _keeps_margin(board, row.system, accurate)]
    equally_accurate = ""
    for sort in dict.fromkeys(("cost", "reqs_per_sec", answer_sort(board))):
        metric = SORTINGS[sort].metric
        measured = [row for row in rows if row.system.median(metric) is not None]
        if sort not in CHOICES or not measured:
            continue
        ordered = sorted(measured, key=lambda row: sort_key(row.system, SORTINGS[sort]))
        best, *others = (row.system for row in ordered)
        doubt = _doubt(best, others, SORTINGS[sort], name)
        parts.setdefault((name(best), doubt), []).append((CHOICES[sort], _figure(best, metric)))
        if sort == answer_sort(board) and as_accurate and ordered[0] not in as_accurate:
            best = next((row.system for row in ordered if row in as_accurate), best)
            equally_accurate = f"{CHOICES[sort]} with that accuracy is {name(best)} ({_figure(best, metric)})"
    if accurate:
        found = ("most accurate", f"{accurate.wer:.2f} % {accurate.error_rate}")
        parts.setdefault((accurate.model, _accuracy_doubt(board, accurate, rows)), []).append(found)
    clauses = [
        f"{_joined(kind for kind, _ in found)} is {who} ({', '.join(figure for _, figure in found)}){doubt}"
        for (who, doubt), found in parts.items()
    ]
    sentence = "; ".join([*clauses, equally_accurate] if equally_accurate else clauses)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def short_gpu_names(systems: Iterable[System]) -> dict[str, str]:
    """`H100` for `NVIDIA H100 80GB HBM3`: up to the first word with a digit, if the names of all GPUs then differ."""
    found = {}
    for system in systems:
        count, _, gpu = system.short_gpu.rpartition(" × ")
        words = gpu.split()
        end = next((place for place, word in enumerate(words, 1) if any(map(str.isdigit, word))), len(words))
        found[system.gpu] = " × ".join([*([count] if count else []), " ".join(words[:end])])
    names = list(found.values())
    return {gpu: name if names.count(name) == 1 else gpu for gpu, name in found.items()}


def _short_verdict(board: Leaderboard, row: Row) -> str:
    if row.is_reference:
        return "reference" if board.verdicts.named else "best"
    return verdict_of(row) if row.verdict else ""


def _rate(row: Row) -> str:
    rate = row.system.median("reqs_per_sec")
    return number(rate, 2 if rate and rate < 100 else 1) + noise_of(row)


def _figure(system: System, metric: str) -> str:
    value = system.median(metric) or 0.0
    match metric:
        case "usd_per_audio_hour":
            return f"{100 * value:.3f} ¢ per audio hour"
        case "energy_wh_per_audio_hour":
            return f"{value:.2f} Wh per audio hour"
    return f"{value:,.{2 if value < 100 else 1}f} requests/s"


def _doubt(best: System, others: Sequence[System], sorting: Sorting, name: Callable[[System], str]) -> str:
    """A clause with the rows whose rate is not shown to differ from the best, at a level that holds for all pairs."""
    pairs = max(1, len(others) * (len(others) + 1) // 2)
    rates = {system: system.by_run(sorting.metric) for system in (best, *others)}
    alike = []
    for other in others:
        noise = [rates[system] for system in others if system is not other]
        found = rate_difference(rates[other], rates[best], others=noise, comparisons=pairs)
        if found and found.interval and found.interval.low <= 0 <= found.interval.high:
            alike.append(name(other))
        elif found and found.interval is None and other is others[0]:
            return ", measured once"
    if not alike:
        return ""
    more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
    return f", which the noise does not separate from {alike[0]}{more}"


def _keeps_margin(board: Leaderboard, system: System, best: System) -> bool:
    """Whether a system is the most accurate one, or is shown not to be worse than it by more than the margin."""
    found = board.verdicts.against(system, best)
    return system is best or (found is not None and found.keeps_margin)


def _accuracy_doubt(board: Leaderboard, best: System, rows: Sequence[Row]) -> str:
    """A clause with the other models that are not shown to be less accurate."""
    others = [row.system for row in rows if row.system.model_id != best.model_id and row.system.wer is not None]
    found = {other: board.verdicts.against(other, best) for other in others}
    alike = [other.model for other, verdict in found.items() if verdict is None or verdict.outcome != "worse"]
    names = list(dict.fromkeys(alike))
    return f", with no difference shown to {_joined(names)}" if names else ""


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
