"""What whisperbench adds to vLLM's worker process, through `worker_extension_cls` and `collective_rpc`."""

from __future__ import annotations

import os
import signal


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
