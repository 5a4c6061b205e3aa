"""The Pareto plot: one front per GPU, readable with many, well-formed whatever its texts hold."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest

from tests.support.reports import LARGE, LINKS, TURBO, hostile_run, report_of
from tests.support.stores import H100, run_of
from whisperbench.compare.pareto_plot import Axis, looks, pareto_svg
from whisperbench.options.benchmark import BenchmarkConfig


class TestPlot:
    def test_one_mark_per_configuration_and_a_title_on_each(self) -> None:
        """Hovering shows the configuration; the file is well-formed XML."""
        report = report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0), references=True)
        root = ET.fromstring(pareto_svg(report.boards[0], (), LINKS) or "")  # noqa: S314 - our own file
        titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
        assert sorted(title.split("\n")[0] for title in titles) == ["large-v3 auto/128", "large-v3-turbo auto/128"]

    def test_published_results_are_marks_of_their_own(self) -> None:
        """Six H100 rows are beside two measured ones of that GPU."""
        report = report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0), references=True)
        assert (pareto_svg(report.boards[0], report.published, LINKS) or "").count('class="published"') == 7

    def test_nothing_to_plot(self) -> None:
        """Without a WER there is no plot."""
        assert pareto_svg(report_of(run_of(wer=None)).boards[0], (), LINKS) is None

    def test_hostile_labels_are_escaped(self) -> None:
        """The plot of a hostile run is well-formed and holds no script."""
        root = ET.fromstring(pareto_svg(report_of(hostile_run()).boards[0], (), LINKS) or "")  # noqa: S314 - our own file
        assert not list(root.iter("{http://www.w3.org/2000/svg}script"))

    @pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [2.3], [1e-6, 2e-6], [2.2, 2.41], [3.0, 4000.0]])
    def test_axes_hold_their_values(self, values: list[float]) -> None:
        """Round ticks around any values, also around one value and around 0."""
        axis = Axis.over(values, 50, 500, 5)
        assert 0 <= axis.marks[0] <= min(values) <= max(values) <= axis.marks[-1]
        assert 2 <= len(axis.ticks) <= 12
        assert all(50 <= axis.at(value) <= 500 for value in values)

    def test_every_gpu_has_a_look_of_its_own(self) -> None:
        """Twelve GPUs: twelve pairs of hue and mark, and as many names in the legend."""
        names = [f"NVIDIA G{place}" for place in range(12)]
        board = report_of(*(run_of(LARGE, gpu=gpu, rate=40.0 + i) for i, gpu in enumerate(names))).boards[0]
        assert len(set(looks(board).values())) == 12
        svg = pareto_svg(board, (), LINKS) or ""
        assert [svg.count(f">{name}</text>") for name in names] == [1] * 12

    def test_one_front_per_gpu_in_steps(self) -> None:
        """Only horizontal and vertical lines, each GPU's through its own optimal points."""
        configs = [BenchmarkConfig(model=f"m{i}") for i in range(3)]
        runs = [
            run_of(c, gpu=gpu, wer=2.0 + i, rate=rate * (i + 1))
            for gpu, rate in ((H100, 40.0), ("NVIDIA A10", 9.0))
            for i, c in enumerate(configs)
        ]
        svg = pareto_svg(report_of(*runs).boards[0], (), LINKS) or ""
        fronts = re.findall(r'class="front" stroke="var\(--c(\d)\)" d="([^"]+)" data-runs="([^"]+)"', svg)
        assert {hue for hue, _, _ in fronts} == {"0", "1"}
        assert all(re.fullmatch(r"M[\d.]+ [\d.]+(V[\d.]+H[\d.]+){2}", path) for _, path, _ in fronts)
        of_gpu = [{run.gpu for run in runs if run.run_id in ids} for _, _, ids in fronts]
        assert sorted(map(len, of_gpu)) == [1, 1]

    def test_points_lead_to_their_runs_and_show_their_intervals(self) -> None:
        """The WER's, and the rate's where its noise is known: here from the repeats of one of the two."""
        repeated = dataclasses.replace(run_of(LARGE), history={"reqs_per_sec": (39.0, 40.0, 41.0)})
        svg = pareto_svg(report_of(repeated, run_of(TURBO, wer=3.0)).boards[0], (), LINKS) or ""
        assert f'href="{LINKS.run(repeated)}"' in svg
        assert svg.count('class="interval"') == 4

    def test_a_file_of_its_own_has_a_title(self) -> None:
        """And its own style; in the page both are the page's."""
        board = report_of(run_of(LARGE), run_of(TURBO)).boards[0]
        alone, inside = (pareto_svg(board, (), LINKS, title=text) or "" for text in ("Test-clean by WER", ""))
        assert ("Test-clean by WER</text>" in alone, "<style>" in alone) == (True, True)
        assert "<style>" not in inside

    def test_widely_spread_rates_are_drawn_by_their_ratio(self) -> None:
        """An A10 and a B200 on one axis: equal factors are equal distances."""
        axis = Axis.over([9.0, 300.0], 0, 100, 5)
        assert axis.logarithmic
        assert axis.at(20.0) - axis.at(10.0) == pytest.approx(axis.at(200.0) - axis.at(100.0))
