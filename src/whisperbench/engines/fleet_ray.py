"""Starts a fleet: an actor of Ray per engine, each on GPUs or cores of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from whisperbench.engines.feed import FeedPlan
from whisperbench.engines.fleet import Fleet, cause_of, why
from whisperbench.engines.fleet_cluster import Node, cluster_nodes, on_node, require_alike
from whisperbench.engines.fleet_dispatch import MOST
from whisperbench.engines.fleet_member import FleetMember, MemberFacts, Place, Signs, Usage, kill_processes
from whisperbench.engines.fleet_session import connect, disconnect
from whisperbench.engines.fleet_signs import LOOK_SECONDS, SILENT_SECONDS
from whisperbench.engines.hardware import MAX_READERS, Hardware, parts_of, seeing_only
from whisperbench.engines.seam import Clip, StartEngine
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError, WhisperbenchError
from whisperbench.inputs.audio import AudioSource

PLACE_SECONDS = 60.0
"""A GPU that a cluster does not give in this time is in somebody's hands."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """Where one engine goes: a place, the node that it is on (None: this host), and the share of a GPU it reserves."""

    place: Place
    node: str | None = None
    reserved_gpu: float = 0.0
    workers: int = 1


def start_fleet(settings: EngineSettings, hardware: Hardware, log: Path, start: StartEngine) -> Fleet:
    """`settings.engines` engines, all ready; each is started by `start` in a process of its own.

    Engine i writes to `engine-i.log` beside `log`; on another host in that one's temporary directory.

    Raises:
        EngineError: Ray is not there, a node has other software or no free GPU, or an engine does not start.
    """
    begun = time.perf_counter()
    # Ray sets OMP_NUM_THREADS to 1 in its processes; on a CPU an engine has as many threads as its seat has cores.
    threads = os.environ.get("OMP_NUM_THREADS") if hardware.has_gpu else None
    ray = connect(settings.ray_address, cpus=settings.engines)
    members: list[RayMember] = []
    try:
        seats = _seats_in_cluster(settings, hardware) if settings.ray_address else seats_here(settings, hardware)
        one = dataclasses.replace(settings, engines=1, engines_per_gpu=1, ray_address="")
        members = [RayMember(ray, seat, {"OMP_NUM_THREADS": threads}) for seat in seats]
        for member in members:
            member.await_its_place()
        for i, member in enumerate(members):
            place = log.with_name(f"{log.stem}-{i}{log.suffix}")
            member.begin(start, dataclasses.replace(one, workers=member.seat.workers), hardware, place)
        waiting = members
        while waiting := [member for member in waiting if not member.has_started()]:
            ray.wait([member.starting for member in waiting], timeout=LOOK_SECONDS)
    except BaseException:
        for member in members:
            member.kill()
        disconnect()
        raise
    load_seconds, checkpoint = time.perf_counter() - begun, Path(settings.checkpoint)
    return Fleet(members, window_of(one), load_seconds, disconnect, checkpoint, settings.stall_seconds)


def window_of(settings: EngineSettings) -> int:
    """Clips that an engine holds: what is in it, and the next burst of them prepared.

    `LLM.generate` takes all of its clips before it begins, so it is given its share at once.
    """
    if settings.front_end == "stock":
        return 1 << 31
    if settings.batch_size:
        return 3 * settings.batch_size + MOST  # a peer waits for two batches ahead of the one that it gathers
    plan = FeedPlan.of(settings)
    return plan.in_flight + max(plan.burst, plan.in_flight // 4)


def seats_here(settings: EngineSettings, hardware: Hardware) -> list[Seat]:
    """An engine per GPU, so many per GPU as is asked for; without a GPU each gets an equal part of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    parts = parts_of(cores, settings.engines)
    workers = settings.workers or _readers(len(cores), settings.engines)
    if not hardware.has_gpu:
        return [Seat(Place(f"engine {i}", cores=part), workers=workers) for i, part in enumerate(parts)]
    return [
        Seat(Place(f"engine {turn * hardware.gpu_count + i}", seeing_only(device)), workers=workers)
        for turn in range(settings.engines_per_gpu)
        for i, device in enumerate(hardware.devices)
    ]


def _seats_in_cluster(settings: EngineSettings, hardware: Hardware) -> list[Seat]:
    """The same on the nodes of the hardware's GPUs; without GPUs the nodes take turns."""
    nodes = cluster_nodes(settings.ray_address)
    by_id = {node.id: node for node in nodes}
    homes = [by_id[device.node] for device in hardware.devices]
    if not homes:
        homes = [nodes[i % len(nodes)] for i in range(settings.engines)]
    turns = settings.engines_per_gpu if hardware.has_gpu else 1
    on_host = Counter(node.host for node in homes)
    for node in {node.id: node for node in homes}.values():
        require_alike(node)
    parts: defaultdict[str, Iterator[tuple[int, ...]]] = defaultdict(lambda: iter(()))
    if not hardware.has_gpu:
        cores = {node.host: node.cores for node in homes}
        parts.update({host: iter(parts_of(range(cores[host]), count)) for host, count in on_host.items()})

    def seat(i: int, node: Node, turn: int) -> Seat:
        part = next(parts[node.host], ())
        return Seat(
            Place(f"engine {turn * len(homes) + i}", cores=part),
            node.id,
            1 / settings.engines_per_gpu if hardware.has_gpu else 0.0,
            settings.workers or _readers(node.cores, on_host[node.host] * turns),
        )

    return [seat(i, node, turn) for turn in range(turns) for i, node in enumerate(homes)]


def _readers(cores: int, engines: int) -> int:
    """Readers of each of several engines on one host, each with a core for its own loop."""
    return max(1, min(MAX_READERS, cores // engines - 1))


class RayMember:
    """A `FleetMember` in an actor of Ray."""

    def __init__(self, ray: Any, seat: Seat, environment: dict[str, str | None]) -> None:
        self._ray, self.seat = ray, seat
        self.name = seat.place.name
        place = dataclasses.replace(seat.place, environment={**environment, **seat.place.environment})
        # Calls of one group are answered one after the other, in order; groups do not wait for each other.
        actor = ray.remote(concurrency_groups={"clips": 1, "texts": 1})(FleetMember)
        where = {} if seat.node is None else {"scheduling_strategy": on_node(seat.node)}
        self._actor = actor.options(
            num_cpus=1, num_gpus=seat.reserved_gpu, max_restarts=0, max_task_retries=0, **where
        ).remote(place)
        self.starting: Any = None
        self._facts: MemberFacts | None = None
        self._host, self._processes = "", dict[int, float]()
        self._log: Path | None = None

    @property
    def facts(self) -> MemberFacts:
        if self._facts is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._facts

    def await_its_place(self) -> None:
        """Wait for Ray to have started its process.

        Raises:
            EngineError: that took too long.
        """
        try:
            self._host, self._processes = self._ray.get(self._actor.ready.remote(), timeout=PLACE_SECONDS)
        except Exception as error:
            raise EngineError(
                f"{self.name} was not given its place within {PLACE_SECONDS:.0f} s ({why(error)}): somebody else holds "
                "the cluster's GPUs. `ray status` tells who waits."
            ) from error

    def begin(self, start: StartEngine, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        """Have the engine started."""
        here = self.seat.node in (None, self._ray.get_runtime_context().get_node_id())
        self._log = log.absolute() if here else Path(tempfile.gettempdir(), f"{log.parent.parent.name}-{log.name}")
        self.starting = self._actor.start.remote(start, settings, hardware, self._log)

    def has_started(self) -> bool:
        """Whether its engine is ready; while it is not, its process has to answer.

        Raises:
            EngineError: it does not start, or its process stands still.
        """
        try:
            if not self._ray.wait([self.starting], timeout=0)[0]:
                ready = self._actor.ready.options(concurrency_group="texts")
                self._ray.get(ready.remote(), timeout=SILENT_SECONDS)
                return False
            self._facts = facts = self._ray.get(self.starting)
            self._processes = facts.processes
        except WhisperbenchError as error:
            raise EngineError(f"{self.name}: {cause_of(error)}", self._log) from error
        except self._ray.exceptions.GetTimeoutError as error:
            said = f"{self.name} gave no sign of life for {SILENT_SECONDS:.0f} s while it started"
            raise EngineError(f"{said}: its process or its host stands still.", self._log) from error
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"{self.name} did not start: {why(error)}.", self._log) from error
        return True

    def put(self, clips: Sequence[Clip], more: bool) -> None:
        self._actor.put.options(concurrency_group="clips").remote(clips, more)

    def take(self) -> Future[Signs]:
        return _future(self._actor.take.options(concurrency_group="texts").remote())

    def seconds_alone(self, clips: Sequence[Clip]) -> Future[float]:
        return _future(self._actor.seconds_alone.remote(clips))

    def usage(self) -> Future[Usage]:
        return _future(self._actor.usage.remote())

    def digest(self, paths: Sequence[Path], clips: Sequence[AudioSource]) -> Future[str]:
        return _future(self._actor.digest.remote(paths, clips))

    def close(self) -> Future[None]:
        answer = _future(self._actor.close.remote())
        self._actor.__ray_terminate__.remote()
        return answer

    def kill(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone, and its node too
            self._ray.kill(self._actor)
        # A process that stands still does not hear Ray; one that is dead has left its engine to its guardian.
        if self._host == platform.node():
            kill_processes(self._processes)
        elif self.seat.node is not None:
            with contextlib.suppress(Exception):
                run = self._ray.remote(num_cpus=0, max_retries=0)(kill_processes)
                run.options(scheduling_strategy=on_node(self.seat.node)).remote(dict(self._processes))


def _future(reference: Any) -> Future[Any]:
    found: Future[Any] = reference.future()
    return found
