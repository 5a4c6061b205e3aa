"""Public frames beside the runs that are in them, and the two questions that engines and GPUs answer."""

from __future__ import annotations

import csv

from tests.compare.test_leaderboard import board_of
from tests.support.stores import run_of
from whisperbench.compare.frames import FIGURES, FRAMES, frame_sections, published_figures
from whisperbench.compare.questions import questions
from whisperbench.compare.systems import System, systems
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.results.run_record import RunRecord

MLPERF = BenchmarkConfig(model="large-v3", split="dev", pack_seconds=30)
H100 = "NVIDIA H100 80GB HBM3"


def of(*runs: RunRecord) -> tuple[System, ...]:
    return systems(runs)


class TestFrames:
    def test_every_published_row_says_where_it_is_from(self) -> None:
        """Source, date and what differs; and its frame is one that is known."""
        for figure in published_figures():
            assert figure.source
            assert figure.date
            assert figure.mind
            assert figure.frame in {frame.name for frame in FRAMES}
        with FIGURES.open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == len(published_figures()) == 7

    def test_mlperf_stands_beside_windows_of_30_seconds(self) -> None:
        """Per GPU: eight B300 at 796.774 samples/s are 99.6 each; two of ours at 90 are 45.0."""
        (section,) = frame_sections(
            of(run_of(MLPERF, rate=90.0, metrics={"utterances": 1640.0}, params={"gpu_count": "2"}))
        )
        assert section.heading.startswith("MLPerf's frame")
        ours, *published = section.table.rows
        assert ours[:4] == [f"2 × {H100}", "large-v3", "vllm 0.32.0 auto/128 pack_seconds=30", "45.0"]
        assert ours[-1] == ""
        assert [row[3] for row in published] == ["99.6", "97.2", "67.9", "60.7", "43.6"]

    def test_the_open_asr_leaderboard_stands_beside_the_whole_of_test_clean(self) -> None:
        """Real weights, 2,620 utterances as they are."""
        (section,) = frame_sections(of(run_of(rate=50.0)))
        assert "Open ASR" in section.heading
        assert [row[4] for row in section.table.rows] == ["370.0", "200.2", "145.5"]
        assert frame_sections(of(run_of(metrics={"utterances": 60.0}))) == []

    def test_what_keeps_a_run_from_the_frame_is_said(self) -> None:
        """Random weights, and data that are packed as MLPerf packs but are not MLPerf's."""
        config = BenchmarkConfig(model="large-v3", load_format="dummy", pack_seconds=30)
        run = run_of(config, wer=None, tags={"whisperbench.random_weights": "true"})
        (section,) = frame_sections(of(run))
        assert section.table.rows[0][-1] == "other data: test-clean; random weights"


class TestQuestions:
    def test_which_engine_on_a_gpu(self) -> None:
        """The fastest setting of each engine, the fastest engine first, with its share of that; and all settings as
        bars, a colour for each engine."""
        peer = BenchmarkConfig(model="large-v3", engine="transformers")
        board = board_of(
            run_of(rate=80.0),
            run_of(BenchmarkConfig(model="large-v3", max_num_seqs=256), rate=100.0),
            run_of(BenchmarkConfig(model="large-v3", front_end="stock"), rate=40.0),
            run_of(peer, rate=20.0, params={"engine_version": "5.19.0", "batch_size_effective": "64"}),
        )
        (question,) = questions([board])
        assert question.heading == f"Which engine on {H100}: large-v3"
        assert [(row[0], row[2], row[3]) for row in question.table.rows] == [
            ("vllm 0.32.0", "100.00", "100 %"),
            ("vllm-stock 0.32.0", "40.00", "40 %"),
            ("transformers 5.19.0", "20.00", "20 %"),
        ]
        assert question.table.rows[2][1] == "transformers batch 64"
        errors, speed = question.charts
        assert errors.heading.startswith("WER %")
        assert [(bar.told, bar.figure, bar.boxes[0].hue) for bar in speed.bars] == [
            ("vllm 0.32.0", "100.00", 1),
            ("vllm 0.32.0", "80.00", 1),
            ("vllm-stock 0.32.0", "40.00", 2),
            ("transformers 5.19.0", "20.00", 0),
        ]

    def test_random_weights_have_the_speed_alone(self) -> None:
        """No WER: one chart; and they are no rivals of real weights."""
        tags = {"whisperbench.random_weights": "true"}
        dummy = [
            BenchmarkConfig(model="large-v3", load_format="dummy", engine=engine)
            for engine in ("vllm", "openai-whisper")
        ]
        board = board_of(*(run_of(config, wer=None, rate=9.0, tags=tags) for config in dummy))
        (question,) = questions([board])
        assert [chart.heading for chart in question.charts] == ["Utterances per second"]

    def test_which_gpu_for_an_engine(self) -> None:
        """One engine on two GPUs; nothing is asked where there is one of each."""
        (question,) = questions([board_of(run_of(rate=80.0), run_of(rate=20.0, gpu="NVIDIA A10"))])
        assert question.heading == "Which GPU for vllm 0.32.0: large-v3"
        assert [row[0] for row in question.table.rows] == [H100, "NVIDIA A10"]
        assert [bar.told for bar in question.charts[1].bars] == [H100, "NVIDIA A10"]
        assert questions([board_of(run_of(rate=80.0))]) == []
