"""What a run holds: names, units, keys, and absence where nothing was measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.fakes import one_gpu
from whisperbench.engines.fleet import FleetPass
from whisperbench.engines.seam import EngineFacts
from whisperbench.engines.settings import EngineSettings
from whisperbench.measure.clock import Measurement, Pass, Transcript
from whisperbench.measure.gpu_monitor import GpuReadings
from whisperbench.measure.score import score
from whisperbench.options import BenchmarkConfig
from whisperbench.results import contents as record
from whisperbench.results import names
from whisperbench.results.facts import Dataset, Facts
from whisperbench.results.summary import closing_line

GPU = one_gpu("NVIDIA H100 80GB HBM3")
SETTINGS = EngineSettings(
    "/m", "bfloat16", "auto", 128, 48_000, 0.92, False, "auto", None, 32, 128, (1, 2), "pipelined", "split", 0
)
FACTS = Facts(
    model_id="openai/whisper-large-v3",
    model_revision="06f233fe06e710322aca913c1bc4249a0d71fce1",
    dataset=Dataset("librispeech", "test-clean", "ab" * 16, "openslr/librispeech_asr@1"),
    utterances_over_30s=9,
    hardware=GPU,
    settings=SETTINGS,
    engine=EngineFacts("bfloat16", "bfloat16", "0.32.0", "2.13.0", 45.0),
    git_dirty=False,
)
TWO = FleetPass((18.0, 18.0), (3.9, 4.0), 2.0, None)
READINGS = GpuReadings(95.0, 70_000.0, 600.0, 2.0)


def transcripts(reference: str | None = "the cat sat down") -> tuple[Transcript, ...]:
    return tuple(Transcript(f"u{i}", str(i), 9.0, reference, "the hat sat down", 5, 0.5 + i, 1) for i in range(4))


def contents(
    score_it: bool = True,
    gpu: GpuReadings | None = READINGS,
    fleet: FleetPass | None = None,
    facts: Facts = FACTS,
    **options: Any,
) -> record.RunContents:
    config = BenchmarkConfig(model="large-v3", **options)
    passes = tuple(Pass(wall, 1.0, transcripts(), gpu, fleet=fleet) for wall in (4.0, 2.0, 3.0)[: config.repeats])
    scored = score(transcripts(), "en", 32) if score_it else None
    measured = Measurement(1.5, passes, (0.6, 0.65) if fleet else ())
    return record.run_contents(config, facts, measured, scored, started_ms=1, ended_ms=2)


def contents_of_two(fleet: FleetPass = TWO, **options: Any) -> record.RunContents:
    """The same of a fleet: an engine on each of two GPUs."""
    hardware = dataclasses.replace(GPU, devices=GPU.devices * 2)
    engine = dataclasses.replace(FACTS.engine, engines=2, hosts=1)
    return contents(fleet=fleet, facts=dataclasses.replace(FACTS, hardware=hardware, engine=engine), **options)


def test_params_hold_every_option_and_the_facts() -> None:
    """An option by its name, then what was resolved under names of its own."""
    params = contents().params
    assert set(BenchmarkConfig().as_params()) <= set(params)
    assert params["dtype"] == "auto"
    assert params["dtype_effective"] == "bfloat16"
    for name in ("model_id", "gpu_name", "gpu_count", "vllm_version", "torch_version", "cuda_driver", "normalizer"):
        assert params[name], name


def test_metrics_have_their_units() -> None:
    """Percent, utterances per second, Wh and dollars per audio hour, each from totals."""
    metrics = contents(gpu_hourly_usd=3.6).metrics
    assert metrics["wer"] == pytest.approx(25.0)
    assert (metrics["substitutions"], metrics["deletions"], metrics["insertions"]) == (4, 0, 0)
    assert metrics["reference_words"] == 16
    assert metrics["reqs_per_sec"] == pytest.approx(1.0)
    assert metrics["rtfx"] == pytest.approx(9.0)
    assert metrics["energy_wh_per_audio_hour"] == pytest.approx(2.0 / (36 / 3600))
    assert metrics["usd_per_audio_hour"] == pytest.approx(3.6 * 4 / 36)
    assert metrics["utterances_over_30s"] == 9
    assert metrics["latency_p95_ms"] == pytest.approx(3500)


def test_what_was_not_measured_is_absent() -> None:
    """No GPU, no price, no references: no metric, rather than 0, -1 or infinity."""
    metrics = contents(score_it=False, gpu=None).metrics
    for name in ("wer", "cer", "wer_ci_low", "gpu_util_mean", "energy_wh_per_audio_hour", "usd_per_audio_hour"):
        assert name not in metrics


def test_the_median_repeat_gives_the_metrics_and_each_is_a_step() -> None:
    """Three repeats of 4, 2 and 3 s: the run shows 3 s, the history all three."""
    found = contents(repeats=3)
    assert found.metrics["wall_seconds"] == 3.0
    assert list(found.history["wall_seconds"]) == [4.0, 2.0, 3.0]


def test_keys_name_what_must_agree() -> None:
    """Readable keys: data, limit, normaliser, language and policy for accuracy; data, GPU and schema for speed."""
    tags = contents(limit=5).tags
    assert tags[names.ACCURACY_KEY].startswith(f"dataset={'ab' * 16}|limit=5|normalizer=whisper-english/")
    assert tags[names.ACCURACY_KEY].endswith("|language=en|long_audio=split")
    assert tags[names.SPEED_KEY] == (
        f"dataset={'ab' * 16}|limit=5|long_audio=split|weights=real|gpu=NVIDIA H100 80GB HBM3|gpu_count=1|schema=1"
    )
    assert names.RANDOM_WEIGHTS not in tags


def test_random_weights_are_tagged_and_say_so() -> None:
    """A run with random weights cannot be taken for an accurate one."""
    found = contents(score_it=False, load_format="dummy")
    assert found.tags[names.RANDOM_WEIGHTS] == "true"
    assert "weights=random" in found.tags[names.SPEED_KEY]
    assert "random weights" in found.description


def test_the_closing_line_is_the_published_one() -> None:
    """The line that people paste in a README."""
    found = contents(kv_cache_dtype="fp8", max_num_seqs=256)
    assert closing_line(found.params, found.metrics) == (
        "WER: 25.00 | throughput: 1.00 reqs/sec | model: large-v3 | kv_cache_dtype: fp8 | max_num_seqs: 256 | "
        "gpu: NVIDIA H100 80GB HBM3"
    )
    assert "WER: not measured" in closing_line(found.params, {"reqs_per_sec": 1.0})


def test_warnings_of_any_repeat_are_tagged() -> None:
    """A stranger on the GPU in one repeat of three taints the run."""
    tainted = GpuReadings(95.0, 1.0, 1.0, 1.0, ("1 other process(es) on the GPU",))
    assert contents(gpu=tainted).tags[names.WARNINGS] == "1 other process(es) on the GPU"
    assert names.WARNINGS not in contents().tags


def test_a_fleet_is_set_against_its_engines_alone_and_priced_with_all_its_gpus() -> None:
    """1 utterance/s where each engine alone makes 0.6 and 0.65; two GPUs cost twice as much."""
    found = contents_of_two(gpu_hourly_usd=3.6)
    assert found.metrics["scaling_efficiency"] == pytest.approx(80.0)
    assert found.metrics["reqs_per_sec_per_gpu"] == pytest.approx(0.5)
    assert found.metrics["usd_per_audio_hour"] == pytest.approx(2 * 3.6 * 4 / 36)
    assert (found.params["engines"], found.params["hosts"], found.params["gpu_count"]) == ("2", "1", "2")
    assert "gpu_count=2" in found.tags[names.SPEED_KEY]
    assert "gpu: 2 × NVIDIA H100" in closing_line(found.params, found.metrics)
    assert names.WARNINGS not in found.tags


@pytest.mark.parametrize(
    ("fleet", "warning"),
    [
        (FleetPass((20.0, 20.0, 16.0), (4.0, 4.0, 4.0), 1.0, None), "the slowest engine did 80 % of the median"),
        (FleetPass((18.0, 18.0), (3.7, 4.0), 1.0, None), r"in the last 7 % of the time an engine had nothing to do"),
    ],
)
def test_engines_that_do_not_work_alike_are_a_warning(fleet: FleetPass, warning: str) -> None:
    """One under 85 % of the median, or more than 5 % of the time in which one of them was done."""
    assert warning in contents_of_two(fleet).tags[names.WARNINGS]


def test_a_pass_that_lost_an_engine_has_texts_and_no_speed() -> None:
    """The times would be those of fewer engines than the run says."""
    lost = dataclasses.replace(TWO, lost=("engine 1 on far was lost (killed)",))
    found = contents_of_two(lost)
    assert found.metrics["wer"] == pytest.approx(25.0)
    assert not {"reqs_per_sec", "rtfx", "wall_seconds", "scaling_efficiency"} & found.metrics.keys()
    assert found.tags[names.WARNINGS] == "1 engine(s) lost, so no speed: engine 1 on far was lost (killed)"
    assert "throughput: not measured" in closing_line(found.params, found.metrics)
