"""The figures of a run show what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.unit.results.test_run_data import results, timed
from whisperbench.measure.score import score
from whisperbench.results.plots import draw_latency, draw_speakers, draw_throughput, errors_by_speaker, write_plots

FEW = timed(4.0)
MANY = tuple(dataclasses.replace(each, utt_id=f"{each.utt_id}-{copy}") for copy in range(5) for each in results())
TIMED = dataclasses.replace(FEW, results=MANY)


def written(directory: Path) -> set[str]:
    """Names of the figures, each a PNG."""
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in directory.iterdir())
    return {path.stem for path in directory.iterdir()}


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    """A run without references and latencies has one figure, and one with few utterances has none."""
    write_plots(tmp_path / "words", TIMED, score(results(), "en"))
    assert written(tmp_path / "words") == {"throughput", "latency", "wer_by_speaker"}
    write_plots(tmp_path / "characters", TIMED, score(results(), "zh"))
    assert written(tmp_path / "characters") == {"throughput", "latency", "cer_by_speaker"}
    silent = tuple(dataclasses.replace(each, latency_seconds=None, reference=None) for each in MANY)
    write_plots(tmp_path / "silent", dataclasses.replace(TIMED, results=silent), None)
    assert written(tmp_path / "silent") == {"throughput"}
    write_plots(tmp_path / "few", FEW, score(results(), "en"))
    assert not (tmp_path / "few").exists()


def test_figures_have_percentiles_and_numbers_of_words() -> None:
    """The latencies are 0.5 to 3.5 s; each speaker has said 4 words."""
    from matplotlib.figure import Figure

    latency, by_speaker = Figure().add_subplot(), Figure().add_subplot()
    draw_latency(latency, TIMED, sorted(each.latency_seconds or 0.0 for each in MANY))
    assert [text.get_text() for text in latency.get_legend().get_texts()] == ["p50: 1.50 s", "p95: 3.50 s"]
    draw_speakers(by_speaker, errors_by_speaker(score(results(), "en")), "WER")
    assert [label.get_text() for label in by_speaker.get_xticklabels()] == [f"{i} (4)" for i in range(4)]
    assert by_speaker.get_legend().get_texts()[0].get_text() == "all speakers: 25.00 % of 16 words"


def test_the_throughput_over_time_adds_up_to_the_whole() -> None:
    """Rates times widths are the utterances, the last one at the very end included."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_throughput(axes, TIMED)
    (stairs,) = axes.patches
    values, edges, _ = stairs.get_data()  # type: ignore[attr-defined]
    assert round(sum(values) * (edges[1] - edges[0]), 6) == len(MANY)
    assert edges[-1] == TIMED.wall_seconds


def test_speakers_are_counted_by_words() -> None:
    """Totals and not means of rates; the worst first, without speakers of empty references.

    A name is not read as a formula, and names with the same beginning have a bar each.
    """
    from matplotlib.figure import Figure

    texts = (("$\\frac{$", "red fox", "red fox"), ("averylongspeaker-1", "dog", "hog"), ("$\\frac{$", "cat", "hat"))
    more = (("averylongspeaker-2", "a b c d", "a b c d"), ("silent", "", ""))
    said = [
        dataclasses.replace(results()[0], speaker=speaker, reference=reference, hypothesis=hypothesis)
        for speaker, reference, hypothesis in (*texts, *more)
    ]
    found = errors_by_speaker(score(said, "en"))
    counted = [(name, counts.errors, counts.units) for name, counts in found.items()]
    assert counted == [("averylongspeaker-1", 1, 1), ("$\\frac{$", 1, 3), ("averylongspeaker-2", 0, 4)]
    figure = Figure()
    draw_speakers(axes := figure.add_subplot(), found, "WER")
    figure.canvas.draw()
    assert len(axes.patches) == 3
