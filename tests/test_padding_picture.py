"""The picture of thinned padding, and the rows that it is drawn from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench import FACTS
from tests.benchmarks.frontier import accuracy, draw, fastest, recorded, table
from tests.benchmarks.padding_accuracy import row
from whisperbench.results.transcripts import StoredTranscripts, StoredUtterance
from whisperbench.tracking.sweep_runs import FinishedRun

H100 = "NVIDIA H100 80GB HBM3"


def timed(model: str, stride: int, engines: int, rate: float, gpu: str = H100) -> dict[str, Any]:
    """As `bench` writes it: params are texts."""
    params = {"gpu_name": gpu, "gpu_count": "1", "model": model, "engine": "vllm", "vllm_version": "0.26.0"}
    return {**params, "padding_stride": str(stride), "engines_per_gpu": str(engines), "reqs_per_sec": rate}


def scored(model: str, stride: int, wer: float) -> dict[str, Any]:
    params = {"gpu_name": "A CPU", "gpu_count": "0", "model": model, "engine": "vllm", "vllm_version": "0.32.0"}
    size = {"dtype_effective": "float32", "utterances": 60.0, "reference_words": 1065.0}
    found = {**params, **size, "padding_stride": str(stride), "reqs_per_sec": 1.0, "wer": wer}
    return found if stride == 1 else {**found, "against_1": {"p_value": 0.25}}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two files of rows with both models, strides that the other does not have, and one of something else."""
    speed = [
        timed("large-v3-turbo", 1, 1, 160.0),
        timed("large-v3-turbo", 16, 1, 249.5),
        timed("large-v3-turbo", 16, 3, 438.0),
        timed("large-v3-turbo", 16, 2, 382.0),
        timed("large-v3-turbo", 32, 2, 390.0),
        timed("large-v3-turbo", 16, 1, 900.0, gpu="NVIDIA H200"),
        {**timed("large-v3-turbo", 16, 3, 930.8), "gpu_count": "2"},
        {**timed("large-v3-turbo", 16, 2, 454.3), "cuda_mps": True},
    ]
    (tmp_path / "speed.json").write_text(json.dumps({"rows": speed}))
    wer = [scored("tiny.en", 1, 7.7), scored("tiny.en", 16, 7.5), scored("tiny.en", 64, 7.9), scored("base", 16, 6.4)]
    (tmp_path / "wer.json").write_text(json.dumps({"rows": wer}))
    (tmp_path / "bench.json").write_text(json.dumps({"rows": [{"model": "large-v3-turbo", "reqs_per_sec": 155.0}]}))
    return tmp_path


def test_the_fastest_number_of_engines_counts(results: Path) -> None:
    """Of each stride, on the kind of GPU that has most of them; one GPU, without what a machine has only sometimes."""
    best = fastest(recorded(results), "large-v3-turbo")
    assert {stride: (r["engines_per_gpu"], r["reqs_per_sec"]) for stride, r in best.items()} == {
        1: ("1", 160.0),
        16: ("3", 438.0),
        32: ("2", 390.0),
    }
    assert fastest(recorded(results), "large-v3") == {}
    assert accuracy(recorded(results), "tiny.en").keys() == {1, 16, 64}


def test_the_picture_says_what_was_measured_with_which_weights(results: Path) -> None:
    """Points where both are known, and in words what is not; the same rows give the same bytes."""
    draw(results / "a.svg", results)
    draw(results / "b.svg", results)
    drawn = (results / "a.svg").read_text(encoding="utf-8")
    assert drawn == (results / "b.svg").read_text(encoding="utf-8")
    texts = re.findall(r">([^<>]+)</text>", drawn)
    assert [texts.count(stride) for stride in ("16", "32", "64")] == [2, 0, 0]
    for said in (
        "WER of tiny.en: its real weights",
        "speed of large-v3-turbo: random weights",
        "the weights of large-v3-turbo were not available: their own WER is not known.",
        "Engines per GPU, the fastest number by stride: large-v3-turbo 1: 1, 16: 3, 32: 2.",
        "WER: A CPU, vLLM 0.32.0, float32, 60 LibriSpeech utterances, 1065 words.",
    ):
        assert said in texts


def test_the_table_leaves_out_what_is_missing(results: Path) -> None:
    """A stride that only one side has is a line with an empty cell."""
    lines = table(recorded(results))
    assert "| 1 | 160.0 (1) |  | 7.70 |  |" in lines
    assert "| 16 | 438.0 (3) |  | 7.50 (0.25) | 6.40 (0.25) |" in lines
    assert "| 64 |  |  | 7.90 (0.25) |  |" in lines


def test_without_a_stride_that_has_both_there_is_no_picture(tmp_path: Path) -> None:
    """An empty panel would look like a result."""
    (tmp_path / "speed.json").write_text(json.dumps({"rows": [timed("large-v3", 1, 1, 116.0)]}))
    with pytest.raises(ValueError, match="no padding_stride with both"):
        draw(tmp_path / "a.svg", tmp_path)


def test_a_speed_row_tells_what_the_frontier_needs() -> None:
    """The fields by which rows of different sweeps can be put together."""
    assert {"gpu_name", "model", "engine", "padding_stride", "engines_per_gpu"} <= set(FACTS)


def test_an_accuracy_row_holds_its_test_against_all_positions() -> None:
    """And how many texts are the same."""

    def texts(*errors: int) -> StoredTranscripts:
        return tuple(
            StoredUtterance(f"{i}", f"{i}", 3.0, "a b", "a b" if not e else f"a {e}", e, 2)
            for i, e in enumerate(errors)
        )

    params = {"model": "demo", "padding_stride": "16", "seed": "32", "gpu_name": "A CPU", "engine": "vllm"}
    run = FinishedRun("1", 3.0, params, {"wer": 12.5, "reqs_per_sec": 1.23456}, {})
    found = row(run, texts(0, 0, 1, 0), texts(0, 0, 0, 0))
    assert (found["model"], found["padding_stride"], found["reqs_per_sec"]) == ("tiny.en", "16", 1.235)
    assert found["against_1"]["difference"] == 12.5
    assert found["against_1"]["equal_texts"] == 3
    assert "against_1" not in row(run, texts(1), None)
