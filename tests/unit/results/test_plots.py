"""The figures of a run: pictures of what was measured, and none of what was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.unit.results.test_run_data import results, timed
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import score
from whisperbench.results.plots import draw_speakers, draw_throughput, errors_by_speaker, write_plots

TIMED = timed(4.0)


def written(directory: Path) -> set[str]:
    """Names of the figures, each a PNG."""
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in directory.iterdir())
    return {path.stem for path in directory.iterdir()}


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    """Three figures with references and several speakers."""
    write_plots(tmp_path / "plots", TIMED, score(results(), "en"))
    assert written(tmp_path / "plots") == {"throughput", "latency", "wer_by_speaker"}
    write_plots(tmp_path / "zh", TIMED, score(results(), "zh"))
    assert written(tmp_path / "zh") == {"throughput", "latency", "cer_by_speaker"}


def test_what_was_not_measured_is_absent(tmp_path: Path) -> None:
    """No references and no latencies."""
    silent = tuple(dataclasses.replace(each, latency_seconds=None) for each in results(None))
    write_plots(tmp_path / "plots", dataclasses.replace(TIMED, results=silent), None)
    assert written(tmp_path / "plots") == {"throughput"}


def test_the_throughput_over_time_adds_up_to_the_whole() -> None:
    """Rates times widths are the utterances, the last one at the very end included."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_throughput(axes, TIMED)
    (stairs,) = axes.patches
    values, edges, _ = stairs.get_data()  # type: ignore[attr-defined]
    assert round(sum(values) * (edges[1] - edges[0]), 6) == 4
    assert edges[-1] == TIMED.wall_seconds


def test_a_speaker_may_have_any_name(tmp_path: Path) -> None:
    """What others wrote is no formula, and names that begin alike have a bar each."""
    names = ("$\\frac{$", "averylongspeaker-1", "averylongspeaker-2")
    said = [dataclasses.replace(results()[0], speaker=name) for name in names]
    write_plots(tmp_path / "plots", TIMED, score(said, "en"))
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_speakers(axes, errors_by_speaker(score(said, "en")), "WER")
    assert len(axes.patches) == 3


def test_speakers_are_counted_by_words() -> None:
    """Totals and not means of rates; the worst first, without those who say nothing."""

    def said(speaker: str | None, reference: str, hypothesis: str) -> UtteranceResult:
        return dataclasses.replace(results()[0], speaker=speaker, reference=reference, hypothesis=hypothesis)

    scored = score(
        [said("a", "red fox", "red fox"), said("b", "dog", "hog"), said("a", "cat", "hat"), said("c", "", "")],
        "en",
    )
    found = errors_by_speaker(scored)
    assert [(name, counts.errors, counts.units) for name, counts in found.items()] == [("b", 1, 1), ("a", 1, 3)]
