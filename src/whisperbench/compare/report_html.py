"""leaderboard.html and difference.html: self-contained pages that need no server and work without JavaScript.

Nothing that comes from a run reaches the page unescaped, and the page's policy runs only its own script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

from whisperbench.compare import tables
from whisperbench.compare.charts import speed_chart, wer_chart
from whisperbench.compare.columns import Column, Links, shown_columns
from whisperbench.compare.difference import ChangedUtterance, Difference
from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.plot import colour, gpus_of, pareto_svg, points_of
from whisperbench.compare.published import SOURCE
from whisperbench.compare.tables import Cell, Linked, Report, Table
from whisperbench.measure.alignment import align, to_html
from whisperbench.results.run_record import RunRecord
from whisperbench.text import escape

FILES = Path(__file__).parents[1] / "data" / "report"
WRAPPED = 40  # characters; longer cells break into lines
LONGEST_TEXT = 4_000  # characters of one transcript
FRAMED = '<p class="quiet framed-note">Links do not open in this preview: download the page to follow them.</p>'


def leaderboard_html(report: Report) -> str:
    main = report.boards[0]
    findings = [f"<p><strong>{escape(subject)}:</strong> {escape(text)}</p>" for subject, text in tables.findings(main)]
    parts = ["<h1>Whisper leaderboard</h1>", FRAMED, _table(tables.best(main)), *findings]
    parts += [_board(board, report, place) for place, board in enumerate(report.boards)]
    if report.rank_changes is not None:
        changes = _table(tables.rank_changes(report.rank_changes)) or "<p>No rank changes.</p>"
        parts += ["<h2>What rescoring changes</h2>", changes]
    if report.beside:
        if (settings := tables.published_settings(report)).rows:
            parts += ["<h2>Published settings, GPU by GPU, reqs/sec</h2>", _table(settings)]
        parts += ["<h2>Published results, not ranked</h2>", _table(tables.published(report.beside))]
        parts.append(f'<p class="quiet">Source: {escape(SOURCE)}.</p>')
    if report.left_out:
        parts += ["<h2>Left out</h2>", _table(tables.left_out(report.left_out, report.links))]
    parts.append(f"<footer>{escape(report.summary)}</footer>")
    return _page("Whisper leaderboard", "\n".join(parts))


def difference_html(found: Difference, links: Links, normalize: Callable[[str], str]) -> str:
    """Two runs: what differs, and the utterances that changed most, both aligned with their reference."""
    a, b = (_cell(run) for run in tables.compared(found, links))
    parts = [f"<h1>From {a} to {b}</h1>", FRAMED, f"<p>{escape(tables.outcome(found.test))}</p>"]
    if found.not_comparable:
        parts += [f"<p><strong>{tables.warning(found)}</strong></p>", _table(tables.incomparable_fields(found))]
    parts += ["<h2>Params that differ</h2>", _table(tables.params(found)) or "<p>None.</p>"]
    parts += ["<h2>Metrics</h2>", _table(tables.metrics(found)), "<h2>Utterances whose errors changed most</h2>"]
    parts.append(f"<p>{_cell(tables.side_by_side((found.a, found.b), links))}</p>")
    parts += [_utterance(each, (found.a, found.b), normalize) for each in found.utterances] or ["<p>None.</p>"]
    return _page("What changed", "\n".join(parts))


def _page(heading: str, body: str) -> str:
    script = (FILES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template((FILES / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(heading),
        style=(FILES / "style.css").read_text(encoding="utf-8"),
        body=body,
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _board(board: Board, report: Report, place: int) -> str:
    typical = [row.configuration.typical for row in board.rows]
    side_by_side = _cell(tables.side_by_side(typical, report.links))
    return (
        f'<section><h2>{escape(tables.title(board))}</h2><p class="quiet">{escape(tables.explanation(board))}</p>'
        f"{_figure(board, report)}{_leaderboard(board, report.links, f'board-{place}')}"
        f'<p class="quiet">{side_by_side}</p><div class="charts">{wer_chart(board)}{speed_chart(board)}</div></section>'
    )


def _figure(board: Board, report: Report) -> str:
    wide = pareto_svg(board, report.beside)
    narrow = pareto_svg(board, report.beside, width=380, height=340, kind="narrow")
    if wide is None or narrow is None:
        return ""
    keys = [f'<li><i style="background:var(--c{colour(board, g)})"></i>{escape(g)}</li>' for g in gpus_of(board)]
    if any(point.series is None for point in points_of(board, report.beside)):
        keys.append('<li><i class="diamond"></i>published</li>')
    return f'<figure>{wide}{narrow}<ul class="legend">{"".join(keys)}</ul></figure>'


def _leaderboard(board: Board, links: Links, name: str) -> str:
    columns = shown_columns(board)
    gpus = "".join(f"<option>{escape(gpu)}</option>" for gpu in gpus_of(board))
    heads = "".join(f'<th{_class(c.numeric)}><button type="button">{_heading(c)}</button></th>' for c in columns)
    rows = []
    for row in board.rows:
        cells = "".join(_sortable(column, row, links) for column in columns)
        rows.append(f'<tr data-gpu="{escape(row.configuration.gpu)}"{_class(row.rank == 1, "best")}>{cells}</tr>')
    return (
        f'<div class="tools" data-table="{name}"><input type="search" placeholder="Filter" aria-label="Filter">'
        f'<select aria-label="GPU"><option value="">every GPU</option>{gpus}</select>'
        '<output class="quiet"></output></div>'
        f'<div class="scroll named"><table id="{name}" class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heading(column: Column) -> str:
    """Names break into lines at their underscores: the table is wide."""
    return escape(column.heading).replace("_", "_<wbr>")


def _sortable(column: Column, row: Row, links: Links) -> str:
    """A cell with the value that it is sorted by; nothing where it was not measured."""
    value, text = column.value(row), column.text(row)
    if column.numeric and isinstance(value, str) and not value.isdecimal():
        value = None
    shown = _cell(Linked(text, links.run(row.configuration.newest))) if column.link else escape(text)
    return f'<td{_class(column.numeric)} data-value="{"" if value is None else escape(str(value))}">{shown}</td>'


def _utterance(each: ChangedUtterance, runs: Sequence[RunRecord], normalize: Callable[[str], str]) -> str:
    reference = normalize(_cut(each.a.reference or "")).split()
    aligned = [to_html(align(reference, normalize(_cut(u.hypothesis)).split())) for u in (each.a, each.b)]
    texts = "".join(
        f'<p class="quiet">{escape(run.name)}, {u.errors} errors</p><p dir="auto">{text or "(no words)"}</p>'
        for run, u, text in zip(runs, (each.a, each.b), aligned, strict=True)
    )
    return (
        f"<article><h3>{escape(each.a.utt_id)} <span class=quiet>{each.change:+d} errors</span></h3>{texts}</article>"
    )


def _table(table: Table) -> str:
    """A table; nothing of one without rows."""
    if not table.rows:
        return ""
    marks = [_class(place in table.numeric) for place in range(len(table.headings))]
    heads = "".join(f"<th{mark}>{escape(text)}</th>" for mark, text in zip(marks, table.headings, strict=True))
    rows = []
    for row in table.rows:
        cells = zip(marks, row, strict=True)
        rows.append(f"<tr>{''.join(f'<td{_wrapping(cell) or mark}>{_cell(cell)}</td>' for mark, cell in cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, Linked):
        return f'<a href="{escape(cell.address)}" target="_blank" rel="noopener">{escape(cell.text)}</a>'
    return escape(cell)


def _class(applies: bool, name: str = "number") -> str:
    return f' class="{name}"' if applies else ""


def _wrapping(cell: Cell) -> str:
    return _class(isinstance(cell, str) and len(cell) > WRAPPED, "wrap")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
