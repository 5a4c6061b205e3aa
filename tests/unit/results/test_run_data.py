"""Content of a run: names, units and keys; what was not measured is absent."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.base import EngineInfo, PassUsage
from whisperbench.engines.settings import EngineSettings
from whisperbench.measure.gpu import GpuReadings
from whisperbench.measure.load import MachineLoad
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import score
from whisperbench.measure.timing import Measurement, Pass
from whisperbench.results import keys, names
from whisperbench.results import run_data as record
from whisperbench.results.record import RunIdentity
from whisperbench.results.run_info import Dataset, RunData, RunInfo
from whisperbench.results.run_name import gpu_label, run_name
from whisperbench.results.summary import result_block, result_line

GPU = one_gpu("NVIDIA H100 80GB HBM3")
SETTINGS = EngineSettings(
    config=BenchmarkConfig(model="large-v3"),
    checkpoint="/m",
    revision=None,
    ctranslate2=None,
    mel_bins=128,
    prompt_token_ids=(1, 2),
    dtype="bfloat16",
    max_num_batched_tokens=48_000,
    gpu_memory_utilization=0.92,
    enforce_eager=False,
    mel_device="cpu",
    batch_size=0,
    reader_threads=1,
)
FACTS = RunInfo(
    model_id="openai/whisper-large-v3",
    model_revision="06f233fe06e710322aca913c1bc4249a0d71fce1",
    dataset=Dataset("librispeech", "test-clean", "ab" * 16, "openslr/librispeech_asr@1", 4),
    utterances_over_30s=9,
    silent_utterances=2,
    hardware=GPU,
    settings=SETTINGS,
    git_dirty=False,
)
ENGINE = EngineInfo("bfloat16", "bfloat16", "0.32.0", "2.13.0", 45.0)
TWO = PassUsage((18.0, 18.0), (3.9, 4.0), 2.0)
QUIET = MachineLoad(cores=16, own=3.0, other=0.1)
READINGS = GpuReadings(95.0, 70_000.0, 600.0, 2.0)


def results(reference: str | None = "the cat sat down") -> tuple[UtteranceResult, ...]:
    """Four utterances of 9 s with one wrong word each, which finish at 0.5, 1.5, 2.5 and 3.5 s."""
    return tuple(
        UtteranceResult(
            utt_id=f"u{i}",
            hypothesis="the hat sat down",
            tokens=5,
            seconds=9.0,
            windows=1,
            latency_seconds=0.5 + i,
            reference=reference,
            speaker=str(i),
            finished_seconds=0.5 + i,
        )
        for i in range(4)
    )


def timed(wall: float, gpu: GpuReadings | None = None, usage: PassUsage | None = None, **changes: Any) -> Pass:
    return Pass(wall_seconds=wall, cpu_seconds=1.0, gpu=gpu, load=QUIET, usage=usage, results=results(), **changes)


def contents(
    score_it: bool = True,
    gpu: GpuReadings | None = READINGS,
    usage: PassUsage | None = None,
    facts: RunInfo = FACTS,
    engine_info: EngineInfo = ENGINE,
    reference: str = "the cat sat down",
    passes: tuple[Pass, ...] = (),
    **options: Any,
) -> RunData:
    """A run of large-v3 with other options; `passes` replaces one pass per repeat, of 4, 2 and 3 s."""
    config = BenchmarkConfig(model="large-v3", **options)
    passes = passes or tuple(timed(wall, gpu, usage) for wall in (4.0, 2.0, 3.0)[: config.repeats])
    scored = score(results(reference), config.language) if score_it else None
    measured = Measurement(1.5, passes, (0.6, 0.65) if usage else ())
    settings = dataclasses.replace(facts.settings, config=config)
    facts = dataclasses.replace(facts, settings=settings)
    return record.run_data(facts, engine_info, measured, scored)


def contents_of_two(usage: PassUsage = TWO, **options: Any) -> RunData:
    """The same of two engines, one on each of two GPUs."""
    hardware = dataclasses.replace(GPU, devices=GPU.devices * 2)
    facts = dataclasses.replace(FACTS, hardware=hardware)
    return contents(usage=usage, facts=facts, engine_info=dataclasses.replace(ENGINE, engines=2, hosts=1), **options)


OF_EVERY_RUN = {
    *("model", "dtype", "load_format", "corpus", "split", "engine", "kv_cache_dtype", "max_num_seqs"),
    *("max_num_batched_tokens", "padding_stride", "mel_device", "repeats", "model_id", "model_revision_resolved"),
    *("gpu_name", "gpu_count", "gpu_power_limit_watts", "cpu_cores", "cuda_driver", "engine_version", "torch_version"),
    "normalizer",
}


def test_params_are_the_configuration_as_resolved_and_the_facts() -> None:
    """About twenty, each once; further options only if they were changed, and operational ones never."""
    params = contents(stall_minutes=9.0, results_dir="/data", gpu_hourly_usd=2.0).params
    assert params.keys() == OF_EVERY_RUN
    assert (params["dtype"], params["max_num_batched_tokens"], params["mel_device"]) == ("bfloat16", "48000", "cpu")
    changed = contents(limit=8, quantization="fp8").params
    assert {name: changed[name] for name in changed.keys() - OF_EVERY_RUN} == {"limit": "8", "quantization": "fp8"}
    mps = contents(gpu=dataclasses.replace(READINGS, cuda_mps=True)).params
    assert {name: mps[name] for name in mps.keys() - OF_EVERY_RUN} == {"cuda_mps": "true"}
    assert contents(split="test-other").params["split"] == "test-clean"  # the split that was read
    without_splits = dataclasses.replace(FACTS, dataset=dataclasses.replace(FACTS.dataset, name="demo", split="all"))
    assert "split" not in contents(facts=without_splits, corpus="demo").params


def test_params_and_signature_of_another_engine() -> None:
    """They have its version, batches and deviations instead of vLLM's options."""
    engine = EngineInfo("bfloat16", "bfloat16", "5.19.0", "2.13.0", 9.0, "pads with zeros")
    config = BenchmarkConfig(model="large-v3", engine="transformers")
    facts = dataclasses.replace(FACTS, settings=dataclasses.replace(SETTINGS, batch_size=64))
    found = contents(score_it=False, facts=facts, engine_info=engine, engine="transformers")
    params = found.params
    assert (params["engine_version"], params["batch_size"]) == ("5.19.0", "64")
    assert params["engine_deviations"] == "pads with zeros"
    of_vllm = {"kv_cache_dtype", "max_num_seqs", "max_num_batched_tokens", "padding_stride", "mel_device"}
    assert not of_vllm & params.keys()
    assert "|batch=64|transformers=5.19.0|" in found.tags[names.SIGNATURE]
    line = "WER: not measured | throughput: 1.00 reqs/sec | model: large-v3 | engine: transformers | gpu: "
    assert result_line(config, found).startswith(line)
    assert "|seqs=128|vllm=0.32.0|" in contents().tags[names.SIGNATURE]


def test_thinned_padding() -> None:
    """It is part of the signature, but not of the comparability keys; retried windows are counted with it."""
    plain, thinned = contents(), contents(padding_stride=16)
    assert "|vllm=0.32.0|padding_stride=16|gpu=" in thinned.tags[names.SIGNATURE]
    assert "padding_stride" not in plain.tags[names.SIGNATURE]
    for key in (names.ACCURACY_KEY, names.SPEED_KEY):
        assert plain.tags[key] == thinned.tags[key]
    counted = {"repetition_loops", "retried_windows"}
    assert counted & plain.metrics.keys() == {"repetition_loops"}
    assert counted <= thinned.metrics.keys()
    assert not counted & contents(score_it=False, padding_stride=16, load_format="dummy").metrics.keys()


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
    assert metrics["silent_utterances"] == 2
    assert metrics["latency_p95_ms"] == pytest.approx(3500)
    slow = {"reqs_per_sec": 0.041234, "rtfx": 3051.26, "latency_p50_ms": 3512.7}
    rounded = [each.rounded(slow[each.name]) for each in names.METRICS if each.name in slow]
    assert rounded == [0.0412, 3051.3, 3513]  # at least three significant digits


def test_the_cer_is_ranked_without_spaces_between_words() -> None:
    """The CER has the interval and the counts; there is no WER, and the key and the result line name the unit."""
    found = contents(reference="the hut sat down", language="ja")
    assert found.metrics["cer"] == 7.69
    assert (found.metrics["substitutions"], found.metrics["reference_characters"]) == (4, 4 * 13)
    assert "cer_ci_low" in found.metrics
    assert not {"wer", "wer_ci_low", "reference_words"} & found.metrics.keys()
    assert "|unit=character|language=ja|" in found.tags[names.ACCURACY_KEY]
    assert found.description.startswith("`CER: 7.69 | throughput: ")
    assert re.search(r"^\| cer \| 7.69 % \(95 % interval [\d.]+ to [\d.]+\) \|$", found.description, re.M)


@pytest.mark.parametrize(("language", "unit", "count"), [("en", "words", 16), ("zh", "characters", 52)])
def test_invented_units_are_reported_without_speech(language: str, unit: str, count: int) -> None:
    """4 transcripts of 9 s where the references are empty: no error rate, and the units per minute of audio."""
    found = contents(reference="", language=language)
    assert found.metrics[f"invented_{unit}_per_minute"] == round(count / 0.6, 2)
    assert not {"wer", "cer"} & found.metrics.keys()
    assert found.metrics[f"reference_{unit}"] == 0
    assert f"| invented_{unit}_per_minute | {count / 0.6:.2f} {unit} per audio minute |" in found.description
    assert "**WER** not measured (the references contain no words)." in found.description
    assert found.description.startswith("`WER: not measured |")


def test_what_was_not_measured_is_absent() -> None:
    """Without GPU, price and references, metrics are neither 0 nor -1; random weights have no WER."""
    found = contents(score_it=False, gpu=None, load_format="dummy")
    for name in ("wer", "cer", "wer_ci_low", "gpu_util_mean", "energy_wh_per_audio_hour", "usd_per_audio_hour"):
        assert name not in found.metrics
    assert "weights=random" in found.tags[names.SPEED_KEY]
    assert "random weights" in found.description


def test_the_median_repeat_gives_the_metrics_and_each_is_a_step() -> None:
    """Three repeats of 4, 2 and 3 s: the run shows 3 s, the history the exact rates of all three."""
    found = contents(repeats=3, kv_cache_dtype="fp8")
    assert (found.metrics["wall_seconds"], found.metrics["reqs_per_sec"], found.metrics["rtfx"]) == (3.0, 1.33, 12.0)
    assert found.history["reqs_per_sec"] == [1.0, 2.0, 4 / 3]
    assert found.history.keys() == {"reqs_per_sec", "rtfx", "energy_wh_per_audio_hour"}
    assert "| utterances | 4  |" in found.description
    assert "Median of 3 repeats: 1.00, 2.00, 1.33 reqs/sec (spread 75.0 %)." in found.description
    assert "Command: `mlflow run . -P model=large-v3 -P kv_cache_dtype=fp8 -P repeats=3`" in found.description


def test_tags_have_the_keys_the_data_and_the_requested_options() -> None:
    """Operational options are not part of a configuration."""
    tags = contents(limit=5, dtype="float16", repeats=2).tags
    assert tags[names.ACCURACY_KEY].startswith(f"dataset={'ab' * 16}|limit=5|normalizer=whisper-english/")
    assert tags[names.ACCURACY_KEY].endswith("|unit=word|language=en|long_audio=split")
    assert tags[names.SPEED_KEY] == (
        f"dataset={'ab' * 16}|limit=5|long_audio=split|weights=real|gpu=NVIDIA H100 80GB HBM3|gpu_count=1|"
        "gpu_power_limit_watts=700|cpu_cores=1|schema=1"
    )
    assert tags["corpus"] == "test-clean-first5"
    assert keys.fields_of(tags[names.OPTIONS_TAG]) == {"model": "large-v3", "limit": "5", "dtype": "float16"}


def test_runs_with_other_limits_are_no_repeats() -> None:
    """The number of usable cores and the power limit of the GPU are params, and parts of the speed key."""
    device = dataclasses.replace(GPU.devices[0], power_limit_watts=400)
    before = contents()
    for changes, param in (({"cpu_cores": 1.5}, "1.5"), ({"devices": (device,)}, "400")):
        hardware = dataclasses.replace(GPU, **changes)  # type: ignore[arg-type]
        after = contents(facts=dataclasses.replace(FACTS, hardware=hardware))
        assert [text for name, text in after.params.items() if text != before.params[name]] == [param]
        assert RunIdentity.of(before.params, before.tags) != RunIdentity.of(before.params, after.tags)


def test_the_result_line_names_the_options_that_differ() -> None:
    """It has the format of the published result, and further options."""
    config = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8", max_num_seqs=256)
    found = contents(kv_cache_dtype="fp8", max_num_seqs=256)
    assert result_line(config, found) == (
        "WER: 25.00 | throughput: 1.00 reqs/sec | model: large-v3 | kv_cache_dtype: fp8 | max_num_seqs: 256 | "
        "gpu: NVIDIA H100 80GB HBM3"
    )
    special = BenchmarkConfig(padding_stride=16, repeats=3, load_format="dummy", corpus_copies=2, results_dir="x")
    line = result_line(special, contents(score_it=False))
    for part in ("WER: not measured", "padding_stride: 16", "repeats: 3", "load_format: dummy", "corpus_copies: 2"):
        assert f"{part} | " in line
    assert "results_dir" not in line


def test_the_result_block_can_be_read() -> None:
    """Each figure with its uncertainty and size, then model, options, hardware and warnings."""
    options: dict[str, Any] = {"padding_stride": 16, "repeats": 3, "limit": 4}
    found = contents(**options)
    found = dataclasses.replace(found, metrics={**found.metrics, "wer_ci_low": 20.0, "wer_ci_high": 31.0})
    assert result_block(BenchmarkConfig(model="large-v3", **options), found).splitlines() == [
        "WER          25.00 %   (95 % interval 20.00 to 31.00)   test-clean-first4: 4 utterances, 16 words",
        "throughput   1.33 requests/s   RTFx 12.0   n = 3, spread 75.0 %",
        "model        openai/whisper-large-v3, bfloat16, padding_stride=16, repeats=3",
        "hardware     NVIDIA H100 80GB HBM3, 1 cores",
    ]
    disturbed = contents(score_it=False, gpu=dataclasses.replace(READINGS, other_processes=1), load_format="dummy")
    lines = result_block(BenchmarkConfig(model="large-v3", load_format="dummy"), disturbed).splitlines()
    assert lines[0] == "WER          not measured (random weights)   test-clean: 4 utterances"
    assert lines[1].endswith("n = 1, noise unknown")
    assert lines[4] == "warning      1 other process(es) used the GPU; the speed is not ranked"


def test_a_disturbed_run_is_tagged() -> None:
    """Other programs in every repeat; where one repeat was undisturbed, the speed is that of this repeat."""
    used = "2 other process(es) used the GPU"
    disturbed = GpuReadings(95.0, 1.0, 1.0, 1.0, other_processes=2)
    tags = contents(gpu=disturbed).tags
    assert (tags[names.WARNINGS], tags[names.DISTURBED]) == (f"{used}; the speed is not ranked", used)
    assert not {names.WARNINGS, names.DISTURBED} & contents().tags.keys()
    found = contents(repeats=3, passes=(timed(4.0, disturbed), timed(3.0), timed(5.0, disturbed)))
    assert found.history["reqs_per_sec"] == [pytest.approx(4 / 3)]
    assert found.tags[names.WARNINGS] == f"{used} in 2 of 3 passes"
    assert names.DISTURBED not in found.tags


def test_an_invalid_pass_has_transcripts_and_no_speed() -> None:
    """The median is that of the valid passes; without one, the WER alone is measured."""
    reason = "1 engine(s) failed: engine 1 on far"
    passes = (timed(1.0, invalid=reason), timed(4.0), timed(3.0))
    found = contents(repeats=3, passes=passes)
    assert (found.metrics["wall_seconds"], found.metrics["wer"]) == (4.0, pytest.approx(25.0))
    assert list(found.history["reqs_per_sec"]) == [1.0, 4 / 3]
    assert found.tags[names.WARNINGS] == f"the speed was not measured: {reason}"
    assert f"**Warning**: the speed was not measured: {reason}" in found.description
    found = contents(passes=passes[:1])
    assert found.metrics["wer"] == pytest.approx(25.0)
    assert (found.metrics["utterances"], found.metrics["audio_seconds"]) == (4, 36)
    assert not {"reqs_per_sec", "rtfx", "wall_seconds", "latency_p50_ms"} & found.metrics.keys()
    assert found.history == {}
    assert "throughput: not measured" in found.description


def test_a_name_has_setting_model_gpu_and_data() -> None:
    """What differs between runs comes first; random weights and a part of the data are named."""
    config = BenchmarkConfig(model="openai/whisper-large-v3", kv_cache_dtype="fp8", max_num_seqs=256)
    assert run_name(config, GPU) == "fp8-seqs256_whisper-large-v3_H100-80GB_test-clean"
    smoke = BenchmarkConfig(model="large-v3", load_format="dummy", limit=8, corpus="/data/calls of may/")
    assert run_name(smoke, NO_GPU) == "random_large-v3_CPU_calls-of-may-first8"
    shared = BenchmarkConfig(model="large-v3", padding_stride=16, engines_per_gpu=2)
    assert run_name(shared, GPU) == "stride16-2-engines-per-gpu_large-v3_H100-80GB_test-clean"
    two = BenchmarkConfig(model="tiny.en", engine="vllm-stock", gpus=2)
    assert run_name(two, NO_GPU) == "vllm-stock_tiny.en_CPU-2-engines_test-clean"
    assert run_name(config, NO_GPU, "a,b=c") == "a,b=c_CPU_test-clean"
    gpus = ("NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090", "Tesla T4")
    assert [gpu_label(one_gpu(name)) for name in gpus] == ["A100 40GB", "RTX 4090", "T4"]


def test_the_data_at_the_start_is_part_of_the_result() -> None:
    """The same params and tags, so that nothing is logged twice with two values."""
    found, start = contents(), record.run_start(FACTS)
    assert start.params.items() <= found.params.items()
    assert start.tags.items() <= found.tags.items()
    assert "`mlflow run . -P model=large-v3`" in start.description
    assert set(start.params) >= {"model", "kv_cache_dtype", "max_num_seqs", "gpu_name", "split", "model_id"}


def test_several_engines() -> None:
    """1 utterance/s where each engine alone makes 0.6 and 0.65; two GPUs cost twice as much."""
    found = contents_of_two(gpu_hourly_usd=3.6)
    assert found.metrics["scaling_efficiency"] == pytest.approx(80.0)
    assert found.metrics["usd_per_audio_hour"] == pytest.approx(2 * 3.6 * 4 / 36)
    assert (found.params["engines"], found.params["gpu_count"], "hosts" in found.params) == ("2", "2", False)
    assert "gpu_count=2" in found.tags[names.SPEED_KEY]
    assert "gpu: 2 × NVIDIA H100" in found.description
    assert names.WARNINGS not in found.tags
    slow, idle = PassUsage((20.0, 20.0, 16.0), (4.0, 4.0, 4.0), 1.0), PassUsage((18.0, 18.0), (3.7, 4.0), 1.0)
    assert "the slowest engine did 80 % of the median" in contents_of_two(slow).tags[names.WARNINGS]
    assert "idle in the last 7 % of the time: use corpus_copies=" in contents_of_two(idle).tags[names.WARNINGS]


def test_every_metric_of_a_run_is_declared_once() -> None:
    """The summary has one row for each metric that it shows, in the order and with the units of the declarations."""
    found = contents_of_two(gpu_hourly_usd=3.6, padding_stride=16)
    metrics = {**found.metrics, **record.accuracy_metrics(score(results("") + results("他们"), "zh"))}
    metrics |= record.accuracy_metrics(score(results(""), "en"))
    for language in ("en", "zh"):
        metrics |= record.unscored_metrics(BenchmarkConfig(language=language), timed(4.0))
    declared = [metric.name for metric in names.METRICS]
    assert (set(declared), len(set(declared))) == (metrics.keys(), len(declared))
    shown = [metric for metric in names.METRICS if metric.in_summary and metric.name in found.metrics]
    rows = re.findall(r"^\| (\w+) \| [\d,.]+ (.*?) ?(?:\(.*\) )?\|$", found.description, re.M)
    assert len(rows) > 20
    assert rows == [(metric.name, metric.unit) for metric in shown]
