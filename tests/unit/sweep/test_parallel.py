"""Parallel runs: assignment of configurations to slots, shared resources, and stopping."""

from __future__ import annotations

import dataclasses
import os
import threading

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from tests.support.options import sweep_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Device, Hardware
from whisperbench.engines.parallel.ray_cluster import Node
from whisperbench.errors import ConfigError, SweepError
from whisperbench.sweep import parallel_cluster
from whisperbench.sweep.grid import Task, on_every_type
from whisperbench.sweep.parallel import DeviceSlot, Stopped, device_slots, run_in_parallel
from whisperbench.sweep.progress import PlannedRun, Progress
from whisperbench.sweep.runner import hardware_on

H100, A10 = "NVIDIA H100 80GB HBM3", "NVIDIA A10"
MIXED = Hardware(
    "CPU", tuple(Device(name, 1, (9, 0), i, f"GPU-{i}") for i, name in enumerate([H100, A10, H100, A10])), "580.1"
)
ON_H100, ON_A10 = one_gpu(H100), one_gpu(A10)


def configs(count: int, **options: object) -> list[BenchmarkConfig]:
    return [dataclasses.replace(BenchmarkConfig(), max_num_seqs=1 + i, **options) for i in range(count)]


def test_one_slot_is_the_whole_host() -> None:
    """Without parallel runs, a configuration has all cores and no neighbours."""
    assert device_slots(MIXED, 1, [H100, A10]) == [DeviceSlot()]
    assert DeviceSlot().warning == ""


def test_each_slot_has_one_gpu() -> None:
    """Slots have GPUs of the requested types, by UUID."""
    slots = device_slots(MIXED, 0, [H100, A10])
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert [slot.hardware and slot.hardware.gpu_name for slot in device_slots(MIXED, 0, [H100])] == [H100, H100]
    assert all("3 other configuration(s)" in slot.warning for slot in slots)
    with pytest.raises(ConfigError, match=r"parallel_runs=5 is too large: 4 GPUs were found"):
        device_slots(MIXED, 5, [H100, A10])


def test_slots_on_a_cluster_have_the_hardware_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one GPU of the requested types, and the cores of its node."""
    node = Node("a" * 28, "gpu1", 8, dataclasses.replace(MIXED, cpu_cores=8.0), "0.32.0", "code")
    monkeypatch.setattr(parallel_cluster, "cluster_nodes", lambda _address: [node])
    monkeypatch.setattr(parallel_cluster, "require_alike", lambda _node: None)
    slots = parallel_cluster.cluster_slots("head:6379", None, [A10], "http://server")
    found = [slot.hardware for slot in slots if slot.hardware]
    assert [(each.environment["CUDA_VISIBLE_DEVICES"], each.cpu_cores) for each in found] == [
        ("GPU-1", 8.0),
        ("GPU-3", 8.0),
    ]
    assert all(slot.measures(BenchmarkConfig(gpu_type=A10)) for slot in slots)
    assert not any(slot.measures(BenchmarkConfig(gpu_type=H100)) for slot in slots)


def test_without_a_gpu_slots_share_the_cores() -> None:
    """Every core belongs to a slot, and every slot has a core."""
    slots = device_slots(NO_GPU, 2, [])
    assert set().union(*(slot.cores for slot in slots)) == os.sched_getaffinity(0)
    assert all(slot.cores and slot.environment["CUDA_VISIBLE_DEVICES"] == "" for slot in slots)


def test_the_name_of_a_run_has_the_devices_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a slot it has the devices that gpu_type selects; a run without a matching device also has a name."""
    monkeypatch.setattr("whisperbench.engines.start.all_hardware", lambda _address: MIXED)
    monkeypatch.setattr("whisperbench.sweep.runner.all_hardware", lambda: MIXED)
    on_a10, missing = BenchmarkConfig(gpu_type="A10"), BenchmarkConfig(gpu_type="B200")
    assert hardware_on(DeviceSlot(), on_a10).gpu_name == A10
    assert hardware_on(DeviceSlot("a", ON_H100), on_a10) == ON_H100
    assert hardware_on(DeviceSlot(), missing) == MIXED


def test_slots_have_equally_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on different slots are repeats of each other only then; the quota of a cgroup is a further limit."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(7)))
    hardware = dataclasses.replace(MIXED, cpu_cores=7.0)
    assert [slot.cores for slot in device_slots(hardware, 3, [H100, A10])] == [(0, 1), (2, 3), (4, 5)]
    for cores, expected in ((7.0, 2.0), (1.5, 1.5)):
        slots = device_slots(dataclasses.replace(hardware, cpu_cores=cores), 3, [H100, A10])
        assert {slot.hardware.cpu_cores for slot in slots if slot.hardware} == {expected}


def test_every_configuration_on_every_type() -> None:
    """With several GPU types, the name of a task ends with its type."""
    tasks = [Task(config, 1, f"c{i}") for i, config in enumerate(configs(2))]
    assert [(task.name, task.config.gpu_type) for task in on_every_type(tasks, [H100, A10])] == [
        ("c0-NVIDIA-H100-80GB-HBM3", H100),
        ("c0-NVIDIA-A10", A10),
        ("c1-NVIDIA-H100-80GB-HBM3", H100),
        ("c1-NVIDIA-A10", A10),
    ]
    assert [task.name for task in on_every_type(tasks, [H100])] == ["c0", "c1"]
    assert on_every_type(tasks, []) == tuple(tasks)


def test_slots_work_in_parallel_each_on_its_type() -> None:
    """Every configuration is measured once, on a slot of its type, while the other slots measure too."""
    wanted = [*configs(4, gpu_type=H100), *configs(2, gpu_type=A10)]
    slots = [DeviceSlot("a", ON_H100), DeviceSlot("b", ON_H100), DeviceSlot("c", ON_A10)]
    together = threading.Barrier(3, timeout=10)
    done: list[tuple[int, str]] = []

    def measure(index: int, slot: DeviceSlot, _stop: threading.Event) -> None:
        together.wait()  # breaks unless three slots measure at the same time
        done.append((index, slot.name))

    assert run_in_parallel(wanted, slots, measure) == []
    assert sorted(index for index, _ in done) == list(range(6))
    assert {name for index, name in done if index >= 4} == {"c"}


def test_a_slot_keeps_to_its_cores() -> None:
    """A child process inherits the affinity of the thread that starts it."""
    seen = []
    core = min(os.sched_getaffinity(0))
    run_in_parallel(configs(1), [DeviceSlot(cores=(core,))], lambda *_: seen.append(os.sched_getaffinity(0)))
    assert seen == [{core}]


def test_an_error_of_one_slot_stops_the_others() -> None:
    """That error is raised, not the `Stopped` of the others."""

    def measure(index: int, _slot: DeviceSlot, stop: threading.Event) -> None:
        if index == 0:
            raise SweepError("the disk is full")
        assert stop.wait(10)
        raise Stopped

    with pytest.raises(SweepError, match="the disk is full"):
        run_in_parallel(configs(6), [DeviceSlot("a"), DeviceSlot("b")], measure)


def test_configurations_of_a_lost_slot_are_returned() -> None:
    """Only configurations of its GPU type remain; the other slots measure the rest."""
    wanted = [*configs(2, gpu_type=H100), *configs(2, gpu_type=A10)]
    measured: list[int] = []
    slots = [DeviceSlot("a", ON_H100, is_available=lambda: not measured), DeviceSlot("c", ON_A10)]
    left = run_in_parallel(wanted, slots[:1], lambda index, *_: measured.append(index))
    assert (left, measured) == ([1, 2, 3], [0])
    assert run_in_parallel(wanted, slots, lambda index, *_: measured.append(index)) == [0, 1]


@pytest.mark.parametrize("options", [{"gpus": 2}, {"objective": "reqs_per_sec", "max_num_seqs": "1..9"}])
def test_parallel_runs_need_independent_configurations(options: dict[str, object]) -> None:
    """A search proposes one setting after another, and a run on several GPUs does not fit into a slot."""
    with pytest.raises(ConfigError, match="parallel_runs=2 measures configurations on one GPU each"):
        sweep_of(parallel_runs=2, **options)


def test_the_remaining_time_of_parallel_runs() -> None:
    """Four runs of 100 s on two slots take 200 s; the state names the slot."""
    runs = [PlannedRun(f"c{i}", 1, 100.0, "running" if i < 2 else "waiting") for i in range(4)]
    runs[0].device = "GPU 3"
    progress = Progress(runs, slots=2)
    assert progress.remaining_seconds == 200
    assert progress.rows()[0][2] == "running on GPU 3"
