"""The plot of WER against throughput."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

from tests.support.reports import HOSTILE, LARGE, TURBO, hostile_run, report_of
from tests.support.stores import H100, run_of
from whisperbench.compare.plot import pareto_svg
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.text import escape_control

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str | None) -> list[str]:
    root = ET.fromstring(svg or "")  # noqa: S314 - our own file
    return [element.text or "" for element in root.iter(f"{SVG}text")]


class TestPlot:
    def test_optimal_systems_and_gpus_are_named(self) -> None:
        """Labels with GPU and setting are searchable text; only Pareto-optimal systems have one."""
        beaten = run_of(BenchmarkConfig(model="base"), wer=4.0, rate=30.0)
        report = report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0), beaten)
        found = texts(pareto_svg(report.boards[0], (), "Test-clean by WER"))
        assert {"H100 large-v3", "H100 large-v3-turbo", "H100", "Test-clean by WER"} <= set(found)
        assert "H100 base" not in found
        assert {"large-v3", "large-v3-turbo", "base", "requests/s (right is faster)"} <= set(
            found
        )  # shapes, and the axis

    def test_every_point_has_a_tooltip(self) -> None:
        """Setting, GPU and figures."""
        svg = pareto_svg(report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0)).boards[0], ())
        root = ET.fromstring(str(svg))  # noqa: S314 - our own file
        assert [title.text for title in root.iter(f"{SVG}title")] == [
            f"large-v3 on {H100}: WER 2.00 %, 40.00 requests/s",
            f"large-v3-turbo on {H100}: WER 3.00 %, 60.00 requests/s",
        ]

    def test_the_axis_is_the_cost_if_every_price_is_known(self) -> None:
        """A single unknown price leaves the throughput as the only common axis."""
        priced = [run_of(c, metrics={"usd_per_audio_hour": 0.002}) for c in (LARGE, TURBO)]
        assert "¢ per audio hour (left is cheaper)" in texts(pareto_svg(report_of(*priced).boards[0], ()))
        board = report_of(*priced, run_of(BenchmarkConfig(model="base"))).boards[0]
        assert "requests/s (right is faster)" in texts(pareto_svg(board, ()))

    def test_one_dashed_front_per_gpu_in_steps(self) -> None:
        """Only horizontal and vertical lines, and a colour for each GPU."""
        configs = [BenchmarkConfig(model=f"m{i}") for i in range(3)]
        runs = [
            run_of(c, gpu=gpu, wer=2.0 + i, rate=rate * (i + 1))
            for gpu, rate in ((H100, 40.0), ("NVIDIA A10", 9.0))
            for i, c in enumerate(configs)
        ]
        svg = pareto_svg(report_of(*runs).boards[0], ()) or ""
        fronts = re.findall(r'<g id="pareto">\s*<path d="([^"]+)"[^>]*style="([^"]+)"', svg)
        assert len(fronts) == 2
        assert len({re.findall(r"stroke: (#\w+)", style)[0] for _, style in fronts}) == 2
        for path, style in fronts:
            assert "stroke-dasharray" in style
            points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
            assert len(points) == 5
            assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(points))

    def test_published_results_of_the_gpu_are_beside_the_measured_ones(self) -> None:
        """Published results without a measured counterpart on their GPU are not shown."""
        report = report_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=3.0, rate=60.0), published=True)
        assert "published" in texts(pareto_svg(report.boards[0], report.published))
        other = report_of(run_of(LARGE, gpu="NVIDIA L4"), run_of(TURBO, gpu="NVIDIA L4"), published=True)
        assert "published" not in texts(pareto_svg(other.boards[0], other.published))

    def test_nothing_to_plot(self) -> None:
        """Without a WER there is no plot."""
        assert pareto_svg(report_of(run_of(wer=None)).boards[0], ()) is None

    def test_hostile_texts_stay_texts(self) -> None:
        """The SVG of a hostile run is well-formed and has the GPU name as text, including mathematical markup."""
        report = report_of(hostile_run(), run_of(LARGE, gpu=r"$\frac{1}{0$"))
        svg = pareto_svg(report.boards[0], ())
        assert {f"{escape_control(HOSTILE)[:60]}…", r"$\frac{1}{0$"} <= set(texts(svg))
        assert "<script" not in str(svg)

    def test_the_background_is_transparent(self) -> None:
        """The plot is readable on light and on dark pages."""
        svg = pareto_svg(report_of(run_of(LARGE), run_of(TURBO)).boards[0], ()) or ""
        assert "fill: #ffffff" not in svg
        assert "fill: #000000" not in svg

    def test_the_same_leaderboard_gives_the_same_file(self) -> None:
        """Without a date and without random ids."""
        board = report_of(run_of(LARGE), run_of(TURBO)).boards[0]
        assert pareto_svg(board, ()) == pareto_svg(board, ())
