"""Ray as this program uses it: a private one on this host that nobody else can reach, or the cluster that was named.

Nothing secret goes into a runtime environment, which Ray writes to its logs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whisperbench.errors import EngineError

SOURCE = Path(__file__).resolve().parents[2]
OBJECT_STORE_BYTES = 80 << 20  # paths and texts are small, and the least that Ray takes is 75 MiB
INSTALL_RAY = "pip install ray==2.60.0"
TOKEN_FILE = Path("~/.ray/auth_token")
KNOCK_SECONDS = 10.0


def connect(address: str, cpus: int | None = None) -> Any:
    """The module `ray`, connected to the cluster at `address`, or (empty) to a Ray of this process alone.

    A connection that there is already is kept.

    Raises:
        EngineError: Ray is not installed, or the cluster does not answer or lets nobody in.
    """
    if address:
        if not _is_connected():
            _require_listener(address)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        _keep_private(Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN_FILE)).expanduser())
    else:
        if not _is_connected():  # without it Ray itself turns the token on, also where it was imported before
            os.environ.pop("RAY_AUTH_MODE", None)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
    # Engines must not be nicer than others, nor be ended for what other processes take of the memory, nor see another
    # project than this one; and Ray must not phone home.
    os.environ.update(
        RAY_worker_niceness="0",
        RAY_memory_monitor_refresh_ms="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        **({} if address else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}),
        PYTHONPATH=os.pathsep.join([str(SOURCE), *_python_path()]),
    )
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f"More than one engine needs Ray, which is not installed here: {INSTALL_RAY} "
            "(requirements/scale.txt). With gpus=1, engines_per_gpu=1 and no ray_address it is not needed."
        ) from error
    if _is_connected():
        return ray
    # vLLM may have imported Ray before: then it has read the variable above already.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    where: dict[str, Any] = {"address": address}
    if not address:
        where = {
            "address": "local",
            "_node_ip_address": "127.0.0.1",
            "num_cpus": cpus,
            "num_gpus": 0,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        with _signals_kept():
            ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        said = f"Ray at {address or 'this host'} does not let us in: {str(error).strip()[:300]}."
        if address:
            said += " Is it Ray 2.60.0, and is its token here (RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)?"
        raise EngineError(said) from error
    return ray


def disconnect() -> None:
    """Leave the cluster, or end the private Ray."""
    import ray

    ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise EngineError(
            f"Nothing answers at ray_address={address} ({error}). `ray start --head` says which address it has."
        ) from error


def _is_connected() -> bool:
    ray: Any = sys.modules.get("ray")  # None, too, where it cannot be imported
    return ray is not None and bool(ray.is_initialized())


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM, which would leave the run open."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: Ray could not change it either
            signal.signal(signal.SIGTERM, before)


def _python_path() -> list[str]:
    return [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _keep_private(token: Path) -> None:
    """Ray writes the file with its token for everybody to read."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(token.stat().st_mode) & 0o077:
            token.chmod(0o600)
