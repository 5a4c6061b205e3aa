"""The plot of WER against throughput."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

from tests.support.reports import A10, BASE, HOSTILE, LARGE, TURBO, board_of, hostile_run, report_of
from tests.support.stores import H100, run_of
from whisperbench.compare.plot import pareto_svg
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.text import escape_control

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str | None) -> list[str]:
    root = ET.fromstring(svg or "")  # noqa: S314 - our own file
    return [element.text or "" for element in root.iter(f"{SVG}text")]


class TestPlot:
    def test_optimal_systems_gpus_and_models_are_named(self) -> None:
        """Labels are searchable text, only Pareto-optimal systems have one, and every point has a tooltip."""
        beaten = run_of(BASE, wer=4.0, rate=30.0)
        board = board_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0), beaten)
        svg = pareto_svg(board, (), "Test-clean by WER")
        found = texts(svg)
        assert {"H100 large-v3", "H100 large-v3-turbo", "H100", "Test-clean by WER"} <= set(found)
        assert "H100 base" not in found
        assert {"large-v3", "large-v3-turbo", "base", "requests/s (right is faster)"} <= set(found)
        root = ET.fromstring(str(svg))  # noqa: S314 - our own file
        assert [title.text for title in root.iter(f"{SVG}title")] == [
            f"base on {H100}: WER 4.00 %, 30.00 requests/s",
            f"large-v3 on {H100}: WER 2.00 %, 40.00 requests/s",
            f"large-v3-turbo on {H100}: WER 3.00 %, 60.00 requests/s",
        ]

    def test_the_axis_is_the_cost_if_every_price_is_known(self) -> None:
        """A single unknown price leaves the throughput as the only common axis."""
        priced = [run_of(c, metrics={"usd_per_audio_hour": 0.002}) for c in (LARGE, TURBO)]
        assert "¢ per audio hour (left is cheaper)" in texts(pareto_svg(board_of(*priced), ()))
        assert "requests/s (right is faster)" in texts(pareto_svg(board_of(*priced, run_of(BASE)), ()))

    def test_one_dashed_front_per_gpu_in_steps(self) -> None:
        """Only horizontal and vertical lines, and a colour for each GPU."""
        configs = [BenchmarkConfig(model=f"m{i}") for i in range(3)]
        runs = [
            run_of(c, gpu=gpu, wer=2.0 + i, rate=rate * (i + 1))
            for gpu, rate in ((H100, 40.0), (A10, 9.0))
            for i, c in enumerate(configs)
        ]
        fronts = re.findall(
            r'<g id="pareto">\s*<path d="([^"]+)"[^>]*style="([^"]+)"', pareto_svg(board_of(*runs), ()) or ""
        )
        assert len(fronts) == 2
        assert len({re.findall(r"stroke: (#\w+)", style)[0] for _, style in fronts}) == 2
        for path, style in fronts:
            assert "stroke-dasharray" in style
            points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
            assert len(points) == 5
            assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(points))

    def test_published_results_of_the_gpu_are_beside_the_measured_ones(self) -> None:
        """Published results without a measured counterpart on their GPU are not shown."""
        for gpu, shown in ((H100, True), ("NVIDIA L4", False)):
            report = report_of(run_of(LARGE, gpu=gpu), run_of(TURBO, gpu=gpu), published=True)
            assert ("published" in texts(pareto_svg(report.boards[0], report.published))) is shown

    def test_nothing_to_plot(self) -> None:
        """Without a WER there is no plot."""
        assert pareto_svg(board_of(run_of(wer=None)), ()) is None

    def test_hostile_texts_stay_texts(self) -> None:
        """The SVG of a hostile run is well-formed and has the GPU name as text, including mathematical markup."""
        svg = pareto_svg(board_of(hostile_run(), run_of(LARGE, gpu=r"$\frac{1}{0$")), ())
        assert {f"{escape_control(HOSTILE)[:60]}…", r"$\frac{1}{0$"} <= set(texts(svg))
        assert "<script" not in str(svg)

    def test_it_is_transparent_and_reproducible(self) -> None:
        """The plot is readable on light and on dark pages, and has neither a date nor random ids."""
        board = board_of(run_of(LARGE), run_of(TURBO))
        svg = pareto_svg(board, ()) or ""
        assert not re.search("fill: #(ffffff|000000)", svg)
        assert pareto_svg(board, ()) == svg
