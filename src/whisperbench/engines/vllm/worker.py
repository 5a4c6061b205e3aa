"""Extension of vLLM's worker class; vLLM imports this module in each worker before it loads the model.

The import lets the process end with its parent: an engine whose client is killed would wait on the GPU without end.
"""

from __future__ import annotations

import os
import signal

from whisperbench.processes.watch import end_with_parent

end_with_parent()


class WorkerExtension:
    """Methods that vLLM adds to its worker class; the client calls them by `collective_rpc`."""

    def use_one_thread(self) -> None:
        """Stack feature tensors on one thread.

        The engine's main thread copies a batch of 32 windows, 25 MB, while the GPU is idle.  With one OpenMP thread per
        core, on cores that the reader threads use, each window took 2.1 ms (H200 host with 16 cores).
        """
        import torch

        torch.set_num_threads(1)

    def exit_on_sigterm(self) -> None:
        """Exit at SIGTERM without Python's finalization.

        In its finalization vLLM collects a heap of a million objects twice, which takes longer than the 5 s after which
        its client kills the process.  The process has no data to save, and the driver frees the GPU's memory.
        """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
