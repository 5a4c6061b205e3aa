"""Start, watch and shut down vLLM's engine process."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from whisperbench.config.benchmark import FP8_ENCODER
from whisperbench.engines.base import Engine, EngineInfo
from whisperbench.engines.engine_log import KILLED, cause_in, output_to, why_it_did_not_start
from whisperbench.engines.hardware import Hardware, usable_cores
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import START_SECONDS, Heartbeat, start_limit
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput
from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants, is_tracker, kill
from whisperbench.processes.watch import watch_processes
from whisperbench.util import gc_paused

T = TypeVar("T")

SHUTDOWN_SECONDS = 5
MAX_MODEL_LEN = 448  # maximum number of tokens of prompt and transcript: the length of Whisper's decoder
UNIPROC_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Runs vLLM's worker inside the engine process on a CPU, as on a GPU.

On a CPU, the short name `uni` would start a second process that sets OpenMP's variables, which are set here instead.
Two cores, tiny.en, float32: ready after 42 s instead of 67 s, 1.68 requests/s instead of 1.01, equal transcripts.
"""
THREADS_BY_VLLM = "VLLM_CPU_OMP_THREADS_BIND"
"""If the user sets this variable, vLLM binds threads to cores in a separate worker process."""
ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forked workers can hang with Whisper
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # Greedy decoding does not use the top-k sampler.  FlashInfer would compile its own with nvcc at the start, which
    # takes 100 s on an H200 and fails on a host without the CUDA toolkit.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # DeepGEMM, which also compiles with nvcc, is only for block-scaled FP8 weights, and Whisper has none.
    "VLLM_USE_DEEP_GEMM": "0",
}
"""Environment variables for vLLM, if the user has not set them."""
WORKER_EXTENSION = "whisperbench.engines.vllm.worker.WorkerExtension"
"""The name of the class, because only worker processes import its module."""


class VllmEngine(Engine):
    """vLLM's `LLM` and the processes that it starts, whose output goes to `log`.

    Raises:
        EngineError: vLLM does not start; the message names the cause and the option to change.
    """

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        self.settings, self._log = settings, log
        self._pids: set[int] = set()
        self._stop_watch: Callable[[], None] | None = None
        self._before = descendants()
        started = time.perf_counter()
        with start_limit(self._before, START_SECONDS if settings.stall_seconds else 0), output_to(log):
            try:
                self.llm = self._start(hardware)
                self._watch_processes()
                self.llm.collective_rpc("exit_on_sigterm")
                if hardware.has_gpu:
                    self.llm.collective_rpc("use_one_thread")
                self.on_started()
            except EngineError as error:
                self.close()
                error.log = log
                raise
            except Exception as error:
                self.close()
                raise EngineError(why_it_did_not_start(error, log, settings), log) from error
        # Exclude vLLM's 780,000 objects from garbage collection, which took 0.6 s in the first pass and 3 s at exit on
        # a core of an AMD EPYC.
        gc.freeze()
        self.info = self._engine_info(time.perf_counter() - started)
        self._log_size = log.stat().st_size  # errors in the log before this offset were not fatal

    def llm_options(self) -> dict[str, Any]:
        """Additional arguments of `LLM`."""
        return {}

    def on_started(self) -> None:
        """Called when vLLM is running; an exception counts as a failed start."""

    def pids(self) -> set[int]:
        return self._pids | {os.getpid()}

    def close(self) -> None:
        """Shut the engine down within SHUTDOWN_SECONDS, wait 3 s for its processes, and kill those that remain."""
        if self._stop_watch:
            self._stop_watch()
        processes = self._processes()
        if llm := getattr(self, "llm", None):
            with output_to(self._log), contextlib.suppress(Exception):  # the engine process may have died
                llm.llm_engine.engine_core.shutdown(timeout=SHUTDOWN_SECONDS)
        _, alive = psutil.wait_procs(processes, timeout=3)
        kill(alive)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Turn an EngineDeadError of vLLM into an EngineError that names the cause."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            why = cause_in(self._log, self._log_size) or KILLED
            raise EngineError(f"The engine died while it worked: {why}. Engine log: {self._log}", self._log) from error

    def _start(self, hardware: Hardware) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        executor = None
        if not hardware.has_gpu and THREADS_BY_VLLM not in os.environ:
            executor = UNIPROC_EXECUTOR
            allowed = max(1, int(usable_cores()))
            threads = min(allowed, psutil.cpu_count(logical=False) or allowed)
            os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        quantization = self.settings.config.quantization
        # The start allocates a million long-lived objects; collecting them would take a fifth of its time.
        with gc_paused():
            from vllm import LLM

            return LLM(
                model=self.settings.checkpoint,
                dtype=self.settings.dtype,
                kv_cache_dtype=self.settings.config.kv_cache_dtype,
                max_model_len=MAX_MODEL_LEN,
                max_num_seqs=self.settings.config.max_num_seqs,
                max_num_batched_tokens=self.settings.max_num_batched_tokens,
                gpu_memory_utilization=self.settings.gpu_memory_utilization,
                kv_cache_memory_bytes=self.settings.kv_cache_memory_bytes,
                enforce_eager=self.settings.enforce_eager,
                load_format=self.settings.config.load_format,
                quantization=None if quantization == FP8_ENCODER else quantization,  # PackedWhisper quantises
                seed=self.settings.config.seed,
                limit_mm_per_prompt={"audio": 1},
                worker_extension_cls=WORKER_EXTENSION,
                trust_remote_code=False,
                distributed_executor_backend=executor,
                enable_flashinfer_autotune=False,
                **self.llm_options(),
            )

    def _watch_processes(self) -> None:
        """Tick with every request and step, and wake the client with an error when an engine process ends.

        vLLM's client (0.32) would wait without a time limit for the next output of a killed engine process.
        """
        engine, processes, heartbeat = self.llm.llm_engine, self._processes(), Heartbeat()
        self.heartbeat = heartbeat
        for name in ("add_request", "step"):  # `LLM.generate` calls them as well
            setattr(engine, name, _ticking(getattr(engine, name), heartbeat))
        self._pids = {process.pid for process in processes}
        outputs = engine.engine_core.outputs_queue

        def report_death() -> None:
            from vllm.v1.engine.exceptions import EngineDeadError

            outputs.put_nowait(EngineDeadError())

        self._stop_watch = watch_processes(self._pids, report_death)

    def _processes(self) -> list[psutil.Process]:
        """Processes of the engine: new descendants titled VLLM::…, or all new ones if none has a title yet."""
        named, others = [], []
        for process in descendants() - self._before:
            with contextlib.suppress(psutil.Error):  # it has ended
                if process.name().startswith("VLLM"):
                    named.append(process)
                elif not is_tracker(process):
                    others.append(process)
        return named or others

    def _engine_info(self, load_seconds: float) -> EngineInfo:
        import torch
        import vllm

        config = self.llm.llm_engine.vllm_config
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        cache = config.cache_config.cache_dtype
        return EngineInfo(
            dtype_effective=dtype,
            kv_cache_dtype_effective=dtype if cache == "auto" else cache,
            engine_version=vllm.__version__,
            torch_version=torch.__version__,
            load_seconds=load_seconds,
        )


def sampling(tokens: int | None) -> Any:
    """Sampling parameters of greedy decoding until the end-of-text token, or of exactly `tokens` tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    final_only = RequestOutputKind.FINAL_ONLY  # no partial outputs, as in `LLM.generate`
    if tokens is None:
        return SamplingParams(temperature=0.0, max_tokens=MAX_OUTPUT_TOKENS, output_kind=final_only)
    return SamplingParams(
        temperature=0.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, output_kind=final_only
    )


def window_output(window: Window, result: Any) -> WindowOutput:
    """Convert vLLM's result of one request."""
    completion = result.outputs[0]
    return WindowOutput(window, completion.text.strip(), len(completion.token_ids))


def _ticking(method: Callable[..., T], heartbeat: Heartbeat) -> Callable[..., T]:
    def call(*args: Any, **kwargs: Any) -> T:
        result = method(*args, **kwargs)
        heartbeat.tick()
        return result

    return call
