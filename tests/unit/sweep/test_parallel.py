"""Parallel runs: assignment of configurations to slots, shared resources, and stopping."""

from __future__ import annotations

import dataclasses
import os
import threading
from concurrent.futures import CancelledError

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from tests.support.options import sweep_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Device, Hardware
from whisperbench.engines.parallel.ray_cluster import Node
from whisperbench.errors import ConfigError, SweepError
from whisperbench.sweep import parallel
from whisperbench.sweep.parallel import DeviceSlot, cluster_slots, device_slots, on_every_type, run_in_parallel
from whisperbench.sweep.progress import PlannedRun
from whisperbench.sweep.run import assign

H100, A10 = "NVIDIA H100 80GB HBM3", "NVIDIA A10"
MIXED = Hardware(
    "CPU",
    tuple(Device(name, 1, (9, 0), i, f"GPU-{i}") for i, name in enumerate([H100, A10, H100, A10])),
    "580.1",
    cpu_cores=7.0,
)
ON_H100, ON_A10 = one_gpu(H100), one_gpu(A10)


def runs(count: int, **options: object) -> list[PlannedRun]:
    return [PlannedRun(dataclasses.replace(BenchmarkConfig(), **options), f"c{i}") for i in range(count)]


def gpus(slots: list[DeviceSlot]) -> list[str]:
    return [slot.hardware.environment["CUDA_VISIBLE_DEVICES"] for slot in slots if slot.hardware]


@pytest.mark.parametrize(
    ("hardware", "count", "types", "uuids", "cpu_cores"),
    [
        (MIXED, None, [H100, A10], ["GPU-0", "GPU-1", "GPU-2", "GPU-3"], 1.0),
        (MIXED, None, [H100], ["GPU-0", "GPU-2"], 3.0),
        (dataclasses.replace(MIXED, cpu_cores=1.5), 3, [H100, A10], ["GPU-0", "GPU-1", "GPU-2"], 1.5),
        (dataclasses.replace(NO_GPU, cpu_cores=7.0), 2, [], ["", ""], 3.0),
    ],
)
def test_slots_have_one_gpu_and_equally_many_cores(
    hardware: Hardware, count: int | None, types: list[str], uuids: list[str], cpu_cores: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Runs on different slots are repeats of each other only then; the quota of a cgroup is a further limit."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(7)))
    slots = device_slots(hardware, count, types)
    assert gpus(slots) == uuids
    assert {slot.hardware.cpu_cores for slot in slots if slot.hardware} == {cpu_cores}
    assert {slot.neighbours for slot in slots} == {len(uuids) - 1}
    size = 7 // len(uuids)
    assert [slot.cores for slot in slots] == [tuple(range(i * size, (i + 1) * size)) for i in range(len(uuids))]


def test_a_host_with_too_few_gpus_is_refused() -> None:
    """With the number that is possible; without parallel runs, one slot is the whole host."""
    with pytest.raises(ConfigError, match=r"parallel_runs=5 needs 5 GPU\(s\), and 4 were found. Use parallel_runs=4"):
        assign(runs(1), sweep_of(parallel_runs=5), MIXED, "")
    assert assign(runs(1), sweep_of(), MIXED, "")[1] == [DeviceSlot()]


def test_slots_on_a_cluster_have_the_hardware_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one GPU of the requested types, and the cores of its node."""
    node = Node("a" * 28, "gpu1", tuple(range(8)), dataclasses.replace(MIXED, cpu_cores=8.0), "vLLM 0.32.0")
    monkeypatch.setattr(parallel, "cluster_nodes", lambda _address: [node])
    monkeypatch.setattr(parallel, "require_alike", lambda _node: None)
    slots = cluster_slots("head:6379", None, [A10], "http://server")
    assert gpus(slots) == ["GPU-1", "GPU-3"]
    assert {slot.hardware.cpu_cores for slot in slots if slot.hardware} == {8.0}
    assert all(slot.measures(BenchmarkConfig(gpu_type=A10)) for slot in slots)
    assert not any(slot.measures(BenchmarkConfig(gpu_type=H100)) for slot in slots)
    with pytest.raises(ConfigError, match="gpu1 cannot open sqlite:///x, a file of this host"):
        cluster_slots("head:6379", None, [A10], "sqlite:///x")


def test_every_configuration_on_every_type() -> None:
    """With several GPU types, the name of a run ends with its type."""
    assert [(run.name, run.config.gpu_type) for run in on_every_type(runs(2), [H100, A10])] == [
        ("c0-NVIDIA-H100-80GB-HBM3", H100),
        ("c0-NVIDIA-A10", A10),
        ("c1-NVIDIA-H100-80GB-HBM3", H100),
        ("c1-NVIDIA-A10", A10),
    ]
    assert [run.name for run in on_every_type(runs(2), [H100])] == ["c0", "c1"]
    assert [run.config.gpu_type for run in on_every_type(runs(1), [])] == [None]


def test_slots_work_in_parallel_each_on_its_type() -> None:
    """Every configuration is measured once, on a slot of its type, while the other slots measure too."""
    wanted = [*runs(4, gpu_type=H100), *runs(2, gpu_type=A10)]
    slots = [DeviceSlot("a", ON_H100), DeviceSlot("b", ON_H100), DeviceSlot("c", ON_A10)]
    together = threading.Barrier(3, timeout=10)
    done: dict[PlannedRun, str] = {}

    def measure(run: PlannedRun, slot: DeviceSlot, _stop: threading.Event) -> None:
        together.wait()  # breaks unless three slots measure at the same time
        assert run not in done
        done[run] = slot.name

    run_in_parallel(wanted, slots, measure)
    assert done.keys() == set(wanted)
    assert [done[run] for run in wanted[4:]] == ["c", "c"]


def test_a_slot_keeps_to_its_cores() -> None:
    """A child process inherits the affinity of the thread that starts it."""
    seen = []
    core = min(os.sched_getaffinity(0))
    run_in_parallel(runs(1), [DeviceSlot(cores=(core,))], lambda *_: seen.append(os.sched_getaffinity(0)))
    assert seen == [{core}]


def test_an_error_of_one_slot_stops_the_others() -> None:
    """That error is raised, not the `CancelledError` of the others."""
    wanted = runs(6)

    def measure(run: PlannedRun, _slot: DeviceSlot, stop: threading.Event) -> None:
        if run is wanted[0]:
            raise SweepError("the disk is full")
        assert stop.wait(10)
        raise CancelledError

    with pytest.raises(SweepError, match="the disk is full"):
        run_in_parallel(wanted, [DeviceSlot("a"), DeviceSlot("b")], measure)
