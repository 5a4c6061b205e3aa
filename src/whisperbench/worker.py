"""What whisperbench adds to vLLM's worker process, through `worker_extension_cls` and `collective_rpc`."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


class WorkerExtension:
    """Mixed into vLLM's worker class; each method is a remote call."""

    def die_with_client(self) -> int:
        """Ask the kernel to kill this process when its parent dies, so that no orphan holds the GPU.

        Returns this process's id.
        """
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return os.getpid()
