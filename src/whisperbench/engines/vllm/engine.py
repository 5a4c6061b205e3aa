"""vLLM's engine process: start, info, shutdown, and the extension of its worker."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from whisperbench.engines.base import Engine, EngineInfo
from whisperbench.engines.engine_log import KILLED, cause_in, output_to, why_it_did_not_start
from whisperbench.engines.hardware import Hardware, physical_cores
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import Heartbeat, start_limit
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput
from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants, kill
from whisperbench.processes.watch import ProcessWatch
from whisperbench.util import gc_paused


class WorkerExtension:
    """Mixed into vLLM's worker class; each method is a remote call."""

    def use_one_thread(self) -> None:
        """Stack feature tensors on one thread: 25 MB for 32 windows, copied on the engine's own thread while the GPU
        waits.  With one OpenMP thread per core, on cores that the readers keep busy, each window took 2.1 ms
        (profiled on an H200 machine with 16 cores)."""
        import torch

        torch.set_num_threads(1)

    def exit_on_sigterm(self) -> None:
        """End this process at SIGTERM without tearing Python down.

        vLLM unfreezes its heap of a million objects and collects it twice at its end, which takes longer than the 5 s
        that its client waits before it kills the process.  There is nothing to save: the driver frees the GPU's memory.
        """

        def leave(*_: object) -> None:
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)


class EngineWatch(ProcessWatch):
    """Puts `EngineDeadError` where vLLM's client waits once one of `processes` (of psutil) is gone."""

    def __init__(self, processes: Iterable[Any], outputs: queue.Queue[Any]) -> None:
        def say_that_it_is_dead() -> None:
            from vllm.v1.engine.exceptions import EngineDeadError

            outputs.put_nowait(EngineDeadError())

        super().__init__((process.pid for process in processes), say_that_it_is_dead)


T = TypeVar("T")

SHUTDOWN_SECONDS = 5
START_SECONDS = 1800
"""A start that takes longer hangs: large weights on a slow disk take some minutes."""
WITHIN_THE_ENGINE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Where vLLM's worker runs on a CPU, as it does on a GPU: in the engine's process.  By its path: of its name, `uni`,
vLLM makes one process more, for the sake of OpenMP's variables on a CPU, which are set here before the engine starts.
Two cores, tiny.en, float32: ready after 42 s in place of 67, 1.68 utterances/s in place of 1.01, the same texts."""
THREADS_BY_VLLM = "VLLM_CPU_OMP_THREADS_BIND"
"""A user who binds threads with this variable has vLLM do it, in a worker process of its own."""
ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # forked workers are known to hang with Whisper
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # Greedy decoding calls no top-k sampler.  FlashInfer's is compiled with nvcc when the engine starts: 100 s on an
    # H200, and an error on a host that has a driver but no CUDA toolkit.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # No layer of Whisper has the block-scaled FP8 weights that DeepGEMM is for; it compiles with nvcc, too.
    "VLLM_USE_DEEP_GEMM": "0",
}
"""Set unless the user has set them."""
MAX_CAPTURED_SEQUENCES = 512
"""vLLM's own limit of a captured batch."""


class VllmProcess(Engine):
    """vLLM's processes, started; all that they write meanwhile goes to `log`, where a failure is looked up.

    Raises:
        EngineError: vLLM does not start; the message names the cause and the option to change.
    """

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        self.settings, self._log = settings, log
        self.heartbeat = Heartbeat()
        self._pids: set[int] = set()
        self._engine_watch: EngineWatch | None = None
        self._before = descendants()
        started = time.perf_counter()
        with start_limit(self._before, START_SECONDS if settings.stall_seconds else 0), output_to(log):
            try:
                self.llm = _start(settings, hardware, self.model_overrides)
                _tick_with(self.llm.llm_engine, self.heartbeat)
                processes = self._processes()
                self._pids = {process.pid for process in processes}
                if processes and (outputs := _queue_of_outputs(self.llm)) is not None:
                    self._engine_watch = EngineWatch(processes, outputs)
                self.llm.collective_rpc("exit_on_sigterm")
                if hardware.has_gpu:
                    self.llm.collective_rpc("use_one_thread")
                self.started()
            except EngineError as error:
                self.close()
                error.log = log
                raise
            except Exception as error:
                self.close()
                raise EngineError(why_it_did_not_start(error, log, settings), log) from error
        # vLLM's 780,000 objects are not looked through again, neither in the first pass nor where the process ends:
        # 0.6 and 3 s of CPU on a core of an AMD EPYC.
        gc.freeze()
        self._facts = self._ask_facts(time.perf_counter() - started)
        self._healthy_until = log.stat().st_size  # bytes of the log: what it says up to here was no failure

    def model_overrides(self) -> Any:
        """vLLM's `hf_overrides`: nothing is changed in the checkpoint's configuration, and vLLM runs its own model."""
        return {}

    def started(self) -> None:
        """What an engine does once vLLM is up; whatever it raises is a start that failed."""

    @property
    def facts(self) -> EngineInfo:
        return self._facts

    def pids(self) -> set[int]:
        return self._pids | {os.getpid()}

    def close(self) -> None:
        """Stop the engine and wait for its processes, at most 8 s; then they are killed."""
        import psutil

        if self._engine_watch:
            self._engine_watch.stop()
        processes = self._processes()
        if llm := getattr(self, "llm", None):
            # An engine that is dead already cannot be asked to stop.
            with output_to(self._log), contextlib.suppress(Exception):
                llm.llm_engine.engine_core.shutdown(timeout=SHUTDOWN_SECONDS)
        _, alive = psutil.wait_procs(processes, timeout=3)
        kill(alive)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Around every call of vLLM: its word for a dead engine becomes an EngineError that names the cause."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            why = cause_in(self._log, self._healthy_until) or KILLED
            raise EngineError(f"The engine died while it worked: {why}. Its log: {self._log}", self._log) from error

    def _processes(self) -> list[Any]:
        """What has started since: those that name themselves VLLM::…, or all but Python's own where none does."""
        import psutil

        named, others = [], []
        for process in descendants() - self._before:
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile, or waits for its parent to notice
                if process.name().startswith("VLLM"):
                    named.append(process)
                elif not any("resource_tracker" in word for word in process.cmdline()):
                    others.append(process)
        return named or others

    def _ask_facts(self, load_seconds: float) -> EngineInfo:
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
    """Greedy until the model ends its text, or exactly so many tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    once = RequestOutputKind.FINAL_ONLY  # as LLM.generate asks: no half-finished outputs, which nobody reads
    if tokens is None:
        return SamplingParams(temperature=0.0, max_tokens=MAX_OUTPUT_TOKENS, output_kind=once)
    return SamplingParams(temperature=0.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, output_kind=once)


def window_text(window: Window, result: Any) -> WindowOutput:
    """vLLM's result of one request."""
    completion = result.outputs[0]
    return WindowOutput(window, completion.text.strip(), len(completion.token_ids))


def _start(settings: EngineSettings, hardware: Hardware, model_overrides: Callable[[], Any]) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    executor = None
    if not hardware.has_gpu and THREADS_BY_VLLM not in os.environ:
        executor = WITHIN_THE_ENGINE
        os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    # A start allocates a million objects that stay: the garbage collector takes a fifth of this process's time.
    with gc_paused():
        from vllm import LLM

        return _llm(LLM, settings, model_overrides(), executor)


def _llm(llm: Any, settings: EngineSettings, overrides: Any, executor: str | None) -> Any:
    return llm(
        model=settings.checkpoint,
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_cache_dtype,
        max_model_len=448,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        enforce_eager=settings.enforce_eager,
        load_format=settings.load_format,
        quantization=settings.quantization,
        seed=settings.seed,
        limit_mm_per_prompt={"audio": 1},
        hf_overrides=overrides,
        worker_extension_cls="whisperbench.engines.vllm.engine.WorkerExtension",
        trust_remote_code=False,
        distributed_executor_backend=executor,
        compilation_config={} if settings.enforce_eager else {"cudagraph_capture_sizes": capture_sizes(settings)},
        enable_flashinfer_autotune=False,
    )


def capture_sizes(settings: EngineSettings) -> list[int]:
    """Batch sizes of the decode steps that are captured as CUDA graphs: 1, 2, 4, 8, 16, 24, then every 32 sequences.

    A smaller batch is padded to the next size, which costs a decode step of Whisper next to nothing.
    """
    largest = min(settings.max_num_seqs, MAX_CAPTURED_SEQUENCES)
    return sorted({size for size in (1, 2, 4, 8, 16, 24, *range(32, largest, 32)) if size < largest} | {largest})


def _tick_with(engine: Any, heartbeat: Heartbeat) -> None:
    """Every request that is handed over and every step's outputs, also where `LLM.generate` hides them."""
    for name in ("add_request", "step"):
        setattr(engine, name, _ticking(getattr(engine, name), heartbeat))


def _ticking(method: Callable[..., T], heartbeat: Heartbeat) -> Callable[..., T]:
    def call(*args: Any, **kwargs: Any) -> T:
        found = method(*args, **kwargs)
        heartbeat.tick()
        return found

    return call


def _queue_of_outputs(llm: Any) -> Any:
    """Where vLLM's client waits for the engine's outputs; None in a version that waits elsewhere."""
    return getattr(getattr(llm.llm_engine, "engine_core", None), "outputs_queue", None)
