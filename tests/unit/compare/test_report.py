"""A comparison in markdown, CSV, JSON and HTML, also with hostile texts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.reports import (
    A10,
    BASE,
    LARGE,
    LINKS,
    ORIGIN,
    SCRIPT,
    TURBO,
    difference_markdown,
    difference_of,
    hostile_run,
    leaderboard_markdown,
    report_of,
)
from tests.support.stores import H100, run_of, spoken, table_of, without_tag
from whisperbench import __version__
from whisperbench.compare.columns import COLUMNS
from whisperbench.compare.difference import FIRST_READ, AlignedUtterance, added_errors
from whisperbench.compare.document import Change
from whisperbench.compare.render import (
    as_markdown,
    csv_cell,
    difference_html,
    leaderboard_csv,
    leaderboard_html,
    leaderboard_json,
)
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.results.transcripts import read_table

AUDIO = "data:audio/wav;base64,UklGRg=="


class Page(HTMLParser):
    """Parses a page into its elements, their attributes and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class TestMarkdown:
    def test_the_short_answer_comes_first(self) -> None:
        """A sentence with the best choices and a row per GPU and model, before any leaderboard."""
        text = leaderboard_markdown(report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0)))
        answer, _, rest = text.partition("\n## ")
        assert "| large-v3-turbo | H100 | default settings | 3.00 (2.70–3.30) |  | 60.00 | 1 | 444 |" in answer
        assert "most accurate is large-v3 (2.00 % WER)" in answer
        assert "sorted by WER" in rest

    def test_a_row_has_everything(self) -> None:
        """Settings, figures with intervals and limits, n, when, who, a link into the ML view of the run, and terms."""
        figures = {"repetition_loops": 0.0, "utterances": 1_313.0}
        runs = [
            run_of(LARGE, wer=2.31, interval=(2.05, 2.6), rate=rate, day=day, metrics=figures)
            for day, rate in enumerate((40.0, 42.0, 41.0))
        ]
        text = leaderboard_markdown(report_of(*runs, run_of(TURBO, wer=9.0)))
        link = f"[{runs[2].run_id[:8]}](http://mlflow.example/#/experiments/1/runs/{runs[2].run_id}"
        assert (
            f"| large-v3 | {H100} | 2.31 (2.05–2.60) | reference | 0 of 1,313 (at most 0.23 % of clips) | "
            f"40.99 (±2.4 %) | 303.3 | vllm 0.32.0 | {link}?workflowType=machine_learning) | ★ | 3 | 2026-11-04 | ann |"
        ) in text
        _, _, terms = text.partition("## How to read the figures")
        assert "Same: they differ by at most 0.2 points, which the option margin sets." in terms
        assert re.findall("^([^:\n]+): ", terms, re.M) == ["WER", "accuracy", "loops", "reqs/s, RTFx", "★"]

    def test_columns_without_values_are_not_shown(self) -> None:
        """A WER of zero has a column, because it was measured."""
        text = leaderboard_markdown(report_of(run_of(LARGE, wer=None), run_of(TURBO, wer=None)))
        assert "WER %" not in text
        assert "Wh per audio hour" not in text
        known = leaderboard_markdown(report_of(run_of(wer=0.0, metrics={"energy_wh_per_audio_hour": 1.25})))
        assert "| WER % |" in known
        assert "| 1.25 |" in known

    def test_the_cer_replaces_the_wer_where_characters_are_counted(self) -> None:
        """The tables name it, it is ranked with its interval, and the page counts characters."""
        metrics = {"cer_ci_low": 30.0, "cer_ci_high": 40.0, "reference_characters": 6_644.0}
        runs = [
            run_of(config, wer=None, metrics={**metrics, "cer": cer}, tags={ACCURACY_KEY: "dataset=ab|unit=character"})
            for config, cer in ((LARGE, 35.5), (TURBO, 33.5))
        ]
        report = report_of(*runs)
        assert [row.system.wer for row in report.boards[0].rows] == [33.5, 35.5]
        assert report.boards[0].group.size[0] == 6_644
        text = leaderboard_markdown(report)
        assert "| CER % |" in text
        assert "33.50 (30.00–40.00)" in text
        assert "sorted by CER" in text
        assert "WER" not in text
        row = next(csv.DictReader(io.StringIO(leaderboard_csv(report))))
        assert (row["cer"], row["cer_ci_low"], row["wer"], row["wer_ci_low"]) == ("33.5", "30.0", "", "")
        utterance = read_table(table_of([("u1", None, "天 气", "天 汽", 1, 2)]))
        assert utterance is not None
        found = dataclasses.replace(report, utterances=(AlignedUtterance.of(utterance[0], str),), audio={"u1": ""})
        assert "1 of 2 characters" in leaderboard_html(found)

    def test_rows_that_look_alike_are_distinguished(self) -> None:
        """Two revisions of one model add a column; a leaderboard without such rows has no such column."""
        runs = [run_of(LARGE, params={"model_revision_resolved": r * 12}) for r in ("a", "b")]
        assert "| revision |" in (text := leaderboard_markdown(report_of(*runs)))
        assert "| aaaaaaaa |" in text
        assert "| revision |" not in leaderboard_markdown(report_of(runs[0], run_of(TURBO)))

    def test_what_was_left_out_is_listed(self) -> None:
        """With its figures and the reason."""
        report = report_of(run_of(LARGE), run_of(TURBO), without_tag(run_of(BASE), ACCURACY_KEY))
        _, _, left_out = leaderboard_markdown(report).partition("## Left out")
        assert "| 2.50 | 40.00 | it has no tag whisperbench.accuracy_key |" in left_out
        assert report.counts == "2 runs compared, 1 left out"

    def test_published_rows_are_apart(self) -> None:
        """Marked as published, with the ratio where something was measured; none of them in a ranking."""
        text = leaderboard_markdown(report_of(run_of(LARGE, rate=70.6), published=True))
        ranking, _, published = text.partition("## Published")
        assert published.count("| vLLM script |") == 10  # 6 of the H100, and large-v3 elsewhere
        assert f"| large-v3 on {H100} | 2.50 | 70.60 | 522.44 | 2.00 |  | 2.00 with default settings |" in published
        assert "(https://github.com/stackav-oss/ai-workloads/tree/main/whisper/offline) |" in published
        assert published.count("enforce_eager=True") == 1
        assert "35.30" not in ranking

    def test_hostile_texts_stay_texts(self) -> None:
        """No HTML, no links, no table cells, no control characters."""
        text = leaderboard_markdown(report_of(hostile_run(), run_of(LARGE)))
        assert "<script" not in text
        assert not re.search(r"(?<!\\)\[x\]\(javascript", text.replace("\\]", "]").replace("\\[", "\\["))
        assert all(character.isprintable() for character in text.replace("\n", ""))
        rows = [line for line in text.splitlines() if line.startswith("|")]
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert len(set(cells)) == 2, "the short answer's columns and the leaderboard's"


class TestCsvAndJson:
    def test_csv_has_all_columns_unrounded(self) -> None:
        """One line per row, read back by Python's own reader."""
        (row,) = csv.DictReader(io.StringIO(leaderboard_csv(report_of(run_of(wer=2.3123456)))))
        assert row["wer"] == "2.3123456"
        assert set(row) == {"board", "url", *(column.name for column in COLUMNS)}

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r="])
    def test_csv_never_starts_a_formula(self, start: str) -> None:
        """Texts that a spreadsheet would compute get an apostrophe, or are spelled out; numbers stay numbers."""
        cell = csv_cell(f"{start}cmd")
        assert isinstance(cell, str)
        assert cell[0] in "'\\"
        assert csv_cell(-0.5) == -0.5

    def test_hostile_csv(self) -> None:
        """No cell of a hostile run begins a formula or holds a control character."""
        rows = csv.reader(io.StringIO(leaderboard_csv(report_of(hostile_run()))))
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@")]
        assert all(cell.isprintable() for cell in cells)

    def test_json_has_every_run_of_a_row(self) -> None:
        """Boards with their key, rows with all columns and all runs; NaN was not measured."""
        runs = [run_of(LARGE, wer=float("nan"), day=day) for day in range(2)]
        (board,) = json.loads(leaderboard_json(report_of(*runs)))["boards"]
        assert board["key"]["limit"] == "all"
        assert {run["run_id"] for run in board["rows"][0]["runs"]} == {run.run_id for run in runs}
        assert board["rows"][0]["wer"] is None

    def test_a_lone_configuration_is_in_both(self) -> None:
        """It is a separate leaderboard without a verdict."""
        report = report_of(run_of(LARGE), run_of(TURBO), run_of(BASE, dataset="e2" * 16, wer=4.4))
        *_, alone = json.loads(leaderboard_json(report))["boards"]
        assert [(row["model"], row["wer"], row["wer_verdict"]) for row in alone["rows"]] == [("base", 4.4, None)]
        *_, row = csv.DictReader(io.StringIO(leaderboard_csv(report)))
        assert (row["model"], row["wer_verdict"]) == ("base", "")


class TestHtml:
    def test_it_is_self_contained(self) -> None:
        """No file, font, script or style from anywhere else; links lead to runs and sources only."""
        page = Page(leaderboard_html(report_of(run_of(LARGE), run_of(TURBO), published=True)))
        assert not page.all("link")
        assert not [attributes for _, attributes in page.elements if "src" in attributes]
        assert len(page.all("svg")) == 1
        assert not page.all("button"), "a browser repeats table headings on every printed page, but not buttons"
        servers = {"/".join(str(link["href"]).split("/")[:3]) for link in page.all("a")}
        assert servers == {"http://mlflow.example", "https://github.com"}

    def test_hostile_texts_stay_texts(self) -> None:
        """They are shown as text and create no elements; only the page's own script may run, by its hash."""
        page = Page(leaderboard_html(report_of(hostile_run(), run_of(LARGE))))
        (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        assert re.search(r"default-src 'none'; .*script-src 'sha256-[^']{44}'", str(policy))
        assert len(page.all("script")) == 1
        assert not page.all("img")
        assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
        assert not [a for _, a in page.elements if str(a.get("href", "")).startswith("javascript")]
        assert SCRIPT in page.text
        assert not re.search("[\x1b\u202e]", page.text)

    def test_every_row_can_be_sorted_and_filtered(self) -> None:
        """Each cell has the value by which it is sorted, each row has its GPU."""
        other = dataclasses.replace(LARGE, max_num_seqs=64)
        page = Page(leaderboard_html(report_of(run_of(LARGE, wer=2.5), run_of(other, wer=None))))
        assert [row["data-gpu"] for row in page.all("tr") if "data-gpu" in row] == [H100] * 2
        cells = [(cell.get("class"), cell.get("data-value")) for cell in page.all("td")]
        assert [value for name, value in cells if name == "wer number"] == ["2.5", ""]
        assert [value for name, value in cells if name == "max_num_seqs number"] == ["128", "64"]

    def test_the_worst_utterances_have_their_audio(self) -> None:
        """Each aligned with its reference, escaped, beside its audio."""
        (utterance,) = read_table(table_of([("u1", "s1", "one two", f"one {SCRIPT}", 1, 2)])) or ()
        aligned = AlignedUtterance.of(utterance, str)
        page = Page(
            leaderboard_html(dataclasses.replace(report_of(run_of()), utterances=(aligned,), audio={"u1": AUDIO}))
        )
        assert [audio["src"] for audio in page.all("audio")] == [AUDIO]
        assert (len(page.all("article")), len(page.all("mark")), len(page.all("script"))) == (1, 1, 1)
        assert "u1 1 of 2 words" in page.text

    def test_the_answer_comes_first_and_the_explanations_last(self) -> None:
        """One plot, no nested scroll box; on a phone a cell has its heading beside it; the page states its origin."""
        text = leaderboard_html(
            report_of(run_of(LARGE), run_of(TURBO, rate=60.0, metrics={"usd_per_audio_hour": 0.002}))
        )
        page = Page(text)
        places = [
            page.text.index(part) for part in ("fastest is", "All settings", "How to read the figures", "Command:")
        ]
        assert places == sorted(places)
        assert len(page.all("figure")) == page.text.count("hours of audio transcribed per hour") == 1
        assert "overflow-y" not in text
        headings = {str(cell.get("data-heading")) for cell in page.all("td")}
        assert {"GPU", "model", "WER %", "reqs/s", "¢/hour"} <= headings
        words = " ".join(page.text.split())
        for name, fact in ORIGIN.items():
            assert f"{name}: {fact}" in words
        assert f"Versions: whisperbench {__version__}; vllm 0.32.0" in words

    def test_a_difference_shows_both_hypotheses(self) -> None:
        """Aligned with the reference, escaped, and with the change of errors."""
        same = ("u2", "s2", "four", "four", 0, 1)
        tables = [
            table_of([("u1", "s1", "one two three", said, errors, 3), same])
            for said, errors in (("one two three", 0), (f"one {SCRIPT}", 2))
        ]
        found = difference_of(run_of(LARGE, wer=10.0), run_of(TURBO, wer=20.0), transcripts=tables)
        page = Page(difference_html(found, LINKS, {"u1": AUDIO}, ORIGIN))
        assert (len(page.all("article")), len(page.all("mark")), len(page.all("script"))) == (1, 1, 1)
        assert "u1 ↑ +2 errors" in page.text
        assert [span["class"] for span in page.all("span") if span.get("class") in ("better", "worse")] == ["worse"]


def test_transcripts_are_linked_side_by_side() -> None:
    """The view of one experiment: its first ten runs, none of another."""
    here = [run_of() for _ in range(12)]
    elsewhere = dataclasses.replace(run_of(), experiment_id="2")
    address = unquote(LINKS.transcripts([here[0], elsewhere, *here[1:]]))
    assert re.findall("[0-9a-f]{32}", address) == [run.run_id for run in here[:10]]
    assert address.startswith("http://mlflow.example/#/experiments/1/runs?searchFilter=attributes.run_id IN (")
    assert address.endswith("&compareRunsMode=ARTIFACT&workflowType=machine_learning")


class TestDifference:
    def test_params_and_metrics_that_differ(self) -> None:
        """Only what differs of the params; every metric with its change in percent, but no series of a run."""
        series = {"system/progress_finished": 5.0, "substitutions": 7.0, "silent_utterances": 0.0}
        text = difference_markdown(
            difference_of(run_of(LARGE, rate=40.0, metrics=series), run_of(TURBO, rate=50.0, metrics=series))
        )
        assert "| model | large-v3 | large-v3-turbo |" in text
        assert "| dtype |" not in text
        assert "| reqs_per_sec | 40.00 | 50.00 | ↑ +25.0 % better |" in text
        assert "| substitutions | 7 | 7 | +0.0 % |" in text
        assert "| silent_utterances | 0 | 0 | – |" in text
        assert "system/" not in text
        assert "WER: not compared, no transcripts." in text
        assert "Speed: 50.00 instead of 40.00 reqs/sec (+25.0 %), of one run each, so its noise is unknown." in text

    @pytest.mark.parametrize(
        ("percent", "better_if", "text"),
        [
            (25.0, "higher", "↑ +25.0 % better"),
            (25.0, "lower", "↑ +25.0 % worse"),
            (-3.2, "lower", "↓ -3.2 % better"),
            (-3.2, None, "↓ -3.2 %"),
            (-0.01, "lower", "+0.0 %"),
        ],
    )
    def test_a_change_has_a_direction_and_a_verdict(self, percent: float, better_if: Any, text: str) -> None:
        """The verdict depends on the metric."""
        assert Change(percent, better_if).text == text

    def test_the_metrics_that_people_read_come_first(self) -> None:
        """At most ten; a change of the WER is better or worse only if that is the verdict."""
        found = difference_of(
            *(run_of(c, wer=w, metrics={"wall_seconds": 9.0}) for c, w in ((LARGE, 2.0), (TURBO, 3.0)))
        )
        first, rest = (as_markdown(parts) for parts in (found.parts(LINKS), found.rest))
        assert "| wer | 2.00 | 3.00 | ↑ +50.0 % |" in first
        assert ("wall_seconds" in first, "wall_seconds" in rest, len(FIRST_READ)) == (False, True, 10)

    def test_the_verdict_on_the_wer(self) -> None:
        """With its limits, its scope, and the loops of both runs."""
        a, b = (
            run_of(c, metrics={"repetition_loops": n, "utterances": 400.0}) for c, n in ((LARGE, 0.0), (TURBO, 1.0))
        )
        tables = [spoken(errors, per_speaker=20) for errors in ([1] * 400, [2] * 400)]
        assert difference_of(a, b, transcripts=tables).accuracy == (
            "WER: worse by 4.96 to 5.04 points, difference +5.00, +4.96 to +5.04 points (95 %, over 20 speakers). "
            "Repetition loops: 1 of 400 (at most 1.19 % of clips), before 0 of 400 (at most 0.75 % of clips)."
        )

    def test_the_speed_of_repeats(self) -> None:
        """A run counts with its median."""
        slow = dataclasses.replace(run_of(LARGE), history={"reqs_per_sec": (39.0, 40.0, 50.0)})
        sentence = difference_of(slow, run_of(TURBO, rate=60.0)).speed
        assert sentence.startswith("Speed: 60.00 instead of 40.00 reqs/sec (+50.0 %)")

    def test_runs_that_may_not_be_compared(self) -> None:
        """The fields of the keys that differ come before anything else; a data set has its name, not its digest."""
        found = difference_of(run_of(LARGE), run_of(LARGE, gpu=A10, dataset="e2" * 16))
        text = difference_markdown(found)
        warning, _, _ = text.partition("## Params")
        assert "Warning: WER and rates are not comparable, because these fields differ." in warning
        assert f"| gpu | {H100} | NVIDIA A10 |" in warning
        assert "| dataset | librispeech test-clean (d1d1d1d1) | librispeech test-clean (e2e2e2e2) |" in warning
        assert "d1" * 16 not in text
        assert found.speed.endswith("of runs that are not comparable.")

    def test_the_utterances_that_changed_most_come_first(self) -> None:
        """In either direction, most errors first; equal ones are not shown."""
        tables = [spoken(errors) for errors in ([0, 5, 1, 2], [0, 1, 4, 3])]
        found = difference_of(run_of(LARGE), run_of(TURBO), transcripts=tables)
        changes = [(a.utterance.utt_id, added_errors(a.utterance, b.utterance)) for a, b in found.utterances]
        assert changes == [("u0001", -4), ("u0002", 3), ("u0003", 1)]
