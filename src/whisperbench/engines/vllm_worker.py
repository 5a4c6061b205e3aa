"""What whisperbench adds to vLLM's worker process, through `worker_extension_cls` and `collective_rpc`."""

from __future__ import annotations


class WorkerExtension:
    """Mixed into vLLM's worker class; each method is a remote call."""

    def use_one_thread(self) -> None:
        """Stack feature tensors on one thread: 25 MB for 32 windows, copied on the engine's own thread while the GPU
        waits.  With one OpenMP thread per core, on cores that the readers keep busy, each window took 2.1 ms
        (profiled on an H200 machine with 16 cores)."""
        import torch

        torch.set_num_threads(1)
