"""What whisperbench adds to vLLM's worker process, through `worker_extension_cls` and `collective_rpc`."""

from __future__ import annotations

EXTENSION = f"{__name__}.extension"
"""For `worker_extension_cls`."""


class WorkerExtension:
    """Mixed into vLLM's worker class; each method is a remote call."""

    def use_one_thread(self) -> None:
        """Stack feature tensors on one thread: 25 MB for 32 windows, copied on the engine's own thread while the GPU
        waits.  With one OpenMP thread per core, on cores that the readers keep busy, each window took 2.1 ms
        (profiled on an H200 machine with 16 cores)."""
        import torch

        torch.set_num_threads(1)


def __getattr__(name: str) -> type[WorkerExtension]:
    """`extension` is asked for by vLLM's worker alone, before it loads a model: the place to make ours known to it."""
    if name != "extension":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from whisperbench.engines.vllm_model import register

    register()
    return WorkerExtension
