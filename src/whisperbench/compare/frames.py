"""Public frames: what others published in a frame of their own (data, rules, clock), beside our runs in that frame."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from whisperbench.compare.published import UTTERANCES
from whisperbench.compare.systems import System
from whisperbench.compare.tables import NOT_MEASURED, Section, Table, number

FIGURES = Path(__file__).parents[1] / "data" / "published_frames.csv"


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Which runs are in it, and what tells them from the published ones in any case."""

    name: str
    heading: str
    holds: Callable[[System], bool]
    mind: str


def _in_mlperf(system: System) -> bool:
    return system.param("pack_seconds") == "30"


def _in_open_asr(system: System) -> bool:
    whole = system.newest.metric("utterances") == UTTERANCES and not system.newest.random_weights
    return whole and system.param("split") == "test-clean" and system.param("pack_seconds") in (None, "0")


FRAMES = (
    Frame(
        "mlperf",
        "MLPerf's frame: dev-clean and dev-other in windows of up to 30 s, per GPU",
        _in_mlperf,
        "The published figures are of the Offline scenario with audio in memory and a gate of 99 % of the reference's "
        "accuracy (WER at most 3.05 %); 1,633 samples come again for 10 minutes or more, and LoadGen counts 63.5 or 75 "
        "tokens in each, by the engine. Ours read and decode the files inside the clock, go through them once per "
        "repeat, and keep what is longer than 30 s, which MLPerf leaves out.",
    ),
    Frame(
        "open-asr",
        "The Open ASR Leaderboard's frame: test-clean",
        _in_open_asr,
        "The published clock starts after the audio is decoded, its utterances are sorted by length, and the RTFx is "
        "over all of its data sets; the normaliser is Whisper's English one in both.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One published row of a frame: the rate of `gpus` GPUs together, WER in percent; None where it has none."""

    frame: str
    gpu: str
    gpus: int
    model: str
    engine: str
    reqs_per_sec: float | None
    rtfx: float | None
    wer: float | None
    source: str
    date: str
    mind: str


def published_figures() -> tuple[PublishedFigure, ...]:
    def value(text: str) -> float | None:
        return float(text) if text else None

    with FIGURES.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedFigure(
                frame=row["frame"],
                gpu=row["gpu"],
                gpus=int(row["gpus"]),
                model=row["model"],
                engine=row["engine"],
                reqs_per_sec=value(row["reqs_per_sec"]),
                rtfx=value(row["rtfx"]),
                wer=value(row["wer"]),
                source=row["source"],
                date=row["date"],
                mind=row["mind"],
            )
            for row in csv.DictReader(file)
        )


def frame_sections(systems: Iterable[System]) -> list[Section]:
    """A table for each frame that has runs here: those first, then what was published."""
    found, known = list(systems), published_figures()
    return [
        Section(
            frame.heading,
            _table([s for s in found if frame.holds(s)], [f for f in known if f.frame == frame.name]),
            note=frame.mind,
        )
        for frame in FRAMES
        if any(map(frame.holds, found))
    ]


def _table(systems: Iterable[System], figures: Iterable[PublishedFigure]) -> Table:
    rows = [
        [
            system.gpu, system.model, _engine(system),
            _rate(system.median("reqs_per_sec"), _gpus(system)),
            _rate(system.median("rtfx"), _gpus(system), 1), number(system.wer), "here",
            f"{system.newest.start_time:%Y-%m-%d}", "; ".join(_caveats(system)),
        ]
        for system in systems
    ] + [
        [
            figure.gpu, figure.model, figure.engine, _rate(figure.reqs_per_sec, figure.gpus),
            _rate(figure.rtfx, figure.gpus, 1), number(figure.wer), figure.source, figure.date, figure.mind,
        ]
        for figure in figures
    ]  # fmt: skip
    headings = ["gpu", "model", "engine", "reqs/sec per GPU", "RTFx per GPU", "WER %", "source", "date", "mind"]
    return Table(headings, rows, frozenset({3, 4, 5}))


def _engine(system: System) -> str:
    """`vllm 0.32.0 fp8/256 stride 16`: without its setting one row looks like another."""
    return f"{system.engine} {system.setting.removeprefix(system.engine_name).strip()}"


def _gpus(system: System) -> int:
    return max(1, int(system.param("gpu_count") or 1))


def _rate(rate: float | None, gpus: int, digits: int = 1) -> str:
    return NOT_MEASURED if rate is None else number(rate / gpus, digits)


def _caveats(system: System) -> list[str]:
    """What keeps a run of ours from being the frame's own."""
    found = []
    if system.param("pack_seconds") == "30" and system.param("split") != "dev":
        found.append(f"other data: {system.param('split')}")
    if system.newest.random_weights:
        found.append("random weights")
    return found
