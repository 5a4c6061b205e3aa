"""The short answer of a report: the best settings and the data they were measured on."""

from __future__ import annotations

import dataclasses

from tests.support.reports import BASE, LARGE, TURBO, leaderboard_markdown, report_of
from tests.support.stores import H100, run_of
from whisperbench.compare.document import Paragraph, Table
from whisperbench.config.benchmark import BenchmarkConfig


class TestShortAnswer:
    def test_it_names_its_data(self) -> None:
        """The heading comes first."""
        text = leaderboard_markdown(report_of(run_of(LARGE), run_of(TURBO)))
        assert text.splitlines()[0] == "# Whisper leaderboard: librispeech test-clean, 2,620 utterances"

    def test_it_follows_sort(self) -> None:
        """By cost the cheapest comes first, in cents with digits that differ."""
        runs = [run_of(c, metrics={"usd_per_audio_hour": usd}) for c, usd in ((LARGE, 0.00254), (TURBO, 0.00251))]
        _, table, _ = report_of(*runs, sort="cost").answer
        assert isinstance(table, Table)
        assert [(row[0], row[-1]) for row in table.rows] == [("large-v3-turbo", "0.251"), ("large-v3", "0.254")]

    def test_at_most_six_rows_are_shown(self) -> None:
        """Fourteen pairs of GPU and model: six rows, and the number of the others."""
        configs = [BenchmarkConfig(model=f"m{i}") for i in range(7)]
        report = report_of(*(run_of(c, gpu=gpu) for c in configs for gpu in (H100, "NVIDIA A10")))
        _, table, after = report.answer
        assert isinstance(table, Table)
        assert isinstance(after, Paragraph)
        assert len(table.rows) == 6
        assert str(after.cell).startswith("8 more rows in leaderboard.html. 14 runs compared")

    def test_the_best_setting_stands_for_a_gpu_and_model(self) -> None:
        """In a leaderboard by WER this is the fastest row, with its cost if a price is known."""
        fp8 = dataclasses.replace(LARGE, kv_cache_dtype="fp8")
        runs = [run_of(LARGE), run_of(fp8, rate=80.0, metrics={"usd_per_audio_hour": 0.005})]
        _, table, _ = report_of(*runs).answer
        assert isinstance(table, Table)
        assert list(table.headings) == ["model", "gpu", "setting", "WER %", "reqs/sec", "RTFx", "¢/hour"]
        figures = ["2.50 (2.25–2.75)", "80.00", "592", "0.500"]
        assert table.rows == [["large-v3", "H100 80GB", "fp8", *figures]]

    def test_one_configuration_is_shown_and_not_ranked(self) -> None:
        """It has its figures, but no rank, no star and no empty sections."""
        text = leaderboard_markdown(report_of(run_of(LARGE, wer=2.31, interval=(2.1, 2.5))))
        assert "| large-v3 | H100 80GB | default settings | 2.31 (2.10–2.50) | 40.00 | 296 |" in text
        assert "**Most accurate:**" not in text
        assert "| rank |" not in text
        assert "★" not in text
        assert "1 run compared, 0 left out." in text

    def test_a_lone_run_on_other_data_is_shown_with_its_figures(self) -> None:
        """It is listed with the fields that differ."""
        lone = run_of(BASE, dataset="e2" * 16, wer=4.44)
        text = leaderboard_markdown(report_of(run_of(LARGE), run_of(TURBO), lone))
        _, _, alone = text.partition("## Configurations without a counterpart")
        assert "| 4.44 | 40.00 | dataset: " in alone
        assert "2 runs compared, 1 without a counterpart, 0 left out." in text

    def test_data_sets_stand_side_by_side(self) -> None:
        """test-clean and test-other of one configuration are columns; a run over a few utterances adds no column."""
        other = {c.model: dataclasses.replace(c, split="test-other") for c in (LARGE, TURBO)}
        runs = [
            *(run_of(c, wer=w) for c, w in ((LARGE, 2.0), (TURBO, 2.2), (BASE, 4.0))),
            *(run_of(other[c.model], wer=w, dataset="e2" * 16) for c, w in ((LARGE, 3.9), (TURBO, 4.1))),
            run_of(dataclasses.replace(LARGE, limit=8), wer=0.0, metrics={"utterances": 8.0}),
        ]
        _, _, rest = leaderboard_markdown(report_of(*runs)).partition("## One configuration on different data, WER %")
        clean, other_part = (f"librispeech {split}, 2,620 utterances" for split in ("test-clean", "test-other"))
        assert f"| configuration | gpu | {clean} | {other_part} |" in rest
        assert f"| large-v3 | {H100} | 2.00 | 3.90 |" in rest
        assert "| base" not in rest.partition("\n## ")[0]
