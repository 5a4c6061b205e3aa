"""The process of vLLM's engine, begun before vLLM asks for it: it imports vLLM while the client does.

vLLM's client imports vLLM (14 s on the host of an H100), starts a process, and that one imports it anew (22 s).  Where
the process is there from the beginning, the two go on at once.  vLLM's own start is used where a version of it has no
place to put the process in, where its work cannot be handed over, or where the process is gone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from whisperbench.garbage import garbage_left_alone

IMPORTED = ("vllm.v1.engine.core", "vllm.v1.worker.{}_worker", "vllm.model_executor.models.whisper")
"""What an engine imports on a `cpu` or a `gpu`, in vLLM 0.26 to 0.32; a name that is gone is imported later."""
PRELOADED = "LD_PRELOAD"
"""What a process can be given at its beginning only."""
PRESTARTED = "prestarted"
"""The process's name for the client; for itself it has the one that vLLM gives it."""
MAKER, CONTEXT = "vllm.v1.engine.utils", "get_mp_context"
"""Which module of vLLM makes the process, and what it asks for the context of multiprocessing that it comes from."""


def libraries_of_a_cpu_engine() -> str:
    """What vLLM has an engine on a CPU preload, as it says it after the process is begun: torch's OpenMP, and an
    allocator where it brings one; where this is not what it says, it starts a process of its own."""
    found = []
    for package, pattern in (("vllm", "libs/libtcmalloc*.so*"), ("torch", "lib/libgomp*.so*")):
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            found += [str(library) for library in sorted(Path(place).glob(pattern))[:1]]
    return ":".join(found)


class Prestarted:
    """A process of this Python that imports what an engine on a `cpu` or a `gpu` needs, and waits for its work; ended
    with the block where none came.  It is a spawned one: what the client has open, and its threads, are not in it."""

    def __init__(self, device: str) -> None:
        self._names = [name.format(device) for name in IMPORTED]

    def __enter__(self) -> Prestarted:
        context = multiprocessing.get_context("spawn")
        receiver, self._sender = context.Pipe(duplex=False)
        self._process: SpawnProcess | None = context.Process(
            target=_wait_for_work, name=PRESTARTED, args=(receiver, self._names)
        )
        self._process.start()
        self._preloaded = os.environ.get(PRELOADED)
        receiver.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        if self._process is not None:
            _end(self._process)

    @contextlib.contextmanager
    def used_by_vllm(self) -> Iterator[None]:
        """Inside the block, the first process that vLLM makes for an engine is this one."""
        try:
            utils = importlib.import_module(MAKER)
            usual = getattr(utils, CONTEXT)
        except (ImportError, AttributeError):
            yield
            return
        setattr(utils, CONTEXT, lambda: _Context(usual(), self))
        try:
            yield
        finally:
            setattr(utils, CONTEXT, usual)

    def hand_over(self, name: str | None, work: Callable[..., None], kwargs: Mapping[str, Any]) -> SpawnProcess | None:
        """The process, which runs `work(**kwargs)` under that name, in the environment of now; None if it cannot."""
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            work_to_do = ForkingPickler.dumps((dict(os.environ), name, work, kwargs))
            if os.environ.get(PRELOADED) == self._preloaded:
                self._sender.send_bytes(work_to_do)
                return process
        except Exception:  # noqa: S110 - it is gone, or something in the arguments goes to a process with its start only
            pass
        _end(process)
        return None


class _Context:
    """A context of multiprocessing whose processes are `_Process`."""

    def __init__(self, usual: SpawnContext, prestarted: Prestarted) -> None:
        self._usual, self._prestarted = usual, prestarted

    def Process(self, **kwargs: Any) -> _Process:  # noqa: N802 - multiprocessing's name
        return _Process(self._usual, self._prestarted, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


class _Process:
    """vLLM's process: until its start one that vLLM has described, then the one that waits, or the described one."""

    def __init__(self, usual: SpawnContext, prestarted: Prestarted, **described: Any) -> None:
        self._prestarted, self._described = prestarted, described
        self._process = usual.Process(**described)

    def start(self) -> None:
        described = self._described
        waiting = self._prestarted.hand_over(described.get("name"), described["target"], described.get("kwargs") or {})
        if waiting is None:
            self._process.start()
        else:
            self._process = waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def _end(process: SpawnProcess) -> None:
    process.kill()
    process.join()


def _wait_for_work(receiver: Connection, names: Sequence[str]) -> None:
    with garbage_left_alone():
        for name in names:
            with contextlib.suppress(Exception):  # the engine fails where it needs it, and says why
                importlib.import_module(name)
    try:
        environment, name, work, kwargs = receiver.recv()
    except EOFError:  # the client has ended, or needs no engine
        return
    for variable in os.environ.keys() - environment.keys():
        del os.environ[variable]
    # Only what differs: a process's title stands where its variables stood.
    os.environ.update(dict(environment.items() - os.environ.items()))
    multiprocessing.current_process().name = name or multiprocessing.current_process().name
    work(**kwargs)
