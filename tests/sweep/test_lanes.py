"""Configurations side by side: which lane takes which, what is shared, and what ends the others."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

import pytest

from tests.support.fakes import NO_GPU
from whisperbench.engines.hardware import Device, Hardware
from whisperbench.errors import ConfigError, SweepError
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.options.sweep import SweepConfig
from whisperbench.sweep.grid import Task
from whisperbench.sweep.lanes import Lane, Stopped, kinds_of, lanes_of, on_every_kind, side_by_side
from whisperbench.sweep.progress import PlannedRun, Progress

H100, A10 = "NVIDIA H100 80GB HBM3", "NVIDIA A10"
MIXED = Hardware(
    "CPU", tuple(Device(name, 1, (9, 0), index=i) for i, name in enumerate([H100, A10, H100, A10])), "580.1"
)


def configs(count: int, **options: object) -> list[BenchmarkConfig]:
    return [dataclasses.replace(BenchmarkConfig(), max_num_seqs=1 + i, **options) for i in range(count)]


def test_one_at_once_is_one_lane_that_shares_nothing() -> None:
    """Clean figures are the default: all cores, no warning, the GPU that it always was."""
    assert lanes_of(MIXED, 1, "*", "") == [Lane()]
    assert Lane().warning == ""


def test_each_lane_sees_a_gpu_of_its_own() -> None:
    """As CUDA counts in NVML's order; of the kinds that were asked for."""
    lanes = lanes_of(MIXED, 0, "*", "")
    assert [lane.environment["CUDA_VISIBLE_DEVICES"] for lane in lanes] == ["0", "1", "2", "3"]
    assert [lane.kind for lane in lanes_of(MIXED, 0, "*H100*", "")] == [H100, H100]
    assert all("3 other configuration(s)" in lane.warning for lane in lanes)
    with pytest.raises(ConfigError, match=r"gpus_at_once=5, and there are 4 GPUs"):
        lanes_of(MIXED, 5, "*", "")


def test_without_a_gpu_lanes_are_parts_of_the_cpu() -> None:
    """Every core in one lane, and at least one in each."""
    cores = os.sched_getaffinity(0)
    lanes = lanes_of(NO_GPU, 2, "*", "")
    assert set().union(*(lane.cores for lane in lanes)) == cores
    assert all(lane.cores and not lane.environment for lane in lanes)


def test_every_configuration_on_every_kind() -> None:
    """One command for all GPUs: named after the kind where there are several, and the same otherwise."""
    tasks = [Task(config, 1, f"c{i}") for i, config in enumerate(configs(2))]
    found = on_every_kind(tasks, kinds_of(MIXED, "*"))
    assert [(task.name, task.config.gpu_kinds) for task in found] == [
        ("c0-NVIDIA-H100-80GB-HBM3", H100),
        ("c0-NVIDIA-A10", A10),
        ("c1-NVIDIA-H100-80GB-HBM3", H100),
        ("c1-NVIDIA-A10", A10),
    ]
    assert [task.name for task in on_every_kind(tasks, [H100])] == ["c0", "c1"]
    assert on_every_kind(tasks, []) == tuple(tasks)
    with pytest.raises(
        ConfigError, match=r"gpu_kinds=\*B200\* cannot be had: there is 2 × NVIDIA H100.*2 × NVIDIA A10"
    ):
        kinds_of(MIXED, "*B200*")


def test_lanes_work_at_once_each_on_its_kind() -> None:
    """Every configuration once, on a lane of its kind; two lanes take half the time of one."""
    wanted = [*configs(4, gpu_kinds=H100), *configs(2, gpu_kinds=A10)]
    lanes = [Lane("a", H100), Lane("b", H100), Lane("c", A10)]
    done: list[tuple[int, str]] = []

    def measure(place: int, lane: Lane, _stop: threading.Event) -> None:
        time.sleep(0.2)
        done.append((place, lane.name))

    started = time.perf_counter()
    side_by_side(wanted, lanes, measure)
    assert time.perf_counter() - started < 1.0
    assert sorted(place for place, _ in done) == list(range(6))
    assert {name for place, name in done if place >= 4} == {"c"}


def test_a_lane_keeps_to_its_cores() -> None:
    """What it starts does too: a child has the affinity of the thread that started it."""
    seen = []
    core = min(os.sched_getaffinity(0))
    side_by_side(configs(1), [Lane(cores=(core,)), Lane()], lambda *_: seen.append(os.sched_getaffinity(0)))
    assert seen[0] in ({core}, os.sched_getaffinity(0))
    assert os.sched_getaffinity(0) != {core} or os.cpu_count() == 1


def test_what_one_lane_raises_ends_the_others() -> None:
    """The cause is what is raised, not that the others were stopped."""

    def measure(place: int, _lane: Lane, stop: threading.Event) -> None:
        if place == 0:
            raise SweepError("the disk is full")
        if stop.wait(10):
            raise Stopped

    started = time.perf_counter()
    with pytest.raises(SweepError, match="the disk is full"):
        side_by_side(configs(6), [Lane("a"), Lane("b")], measure)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("options", [{"gpus": 2}, {"objective": "reqs_per_sec", "max_num_seqs": "1..9"}])
def test_side_by_side_is_for_independent_configurations(options: dict[str, object]) -> None:
    """A search proposes one after the other, and a run on several GPUs has no GPU of its own."""
    with pytest.raises(ConfigError, match="gpus_at_once=2 measures independent configurations"):
        SweepConfig(gpus_at_once=2, **options)


def test_etas_of_lanes() -> None:
    """Four runs of 100 s on two lanes take 200 s; who runs says where."""
    runs = [PlannedRun(f"c{i}", 1, 100.0, "running" if i < 2 else "waiting") for i in range(4)]
    runs[0].where = "GPU 3"
    progress = Progress(runs, at_once=2)
    assert progress.remaining_seconds == 200
    assert [row[6] for row in progress.rows()] == ["1:40", "1:40", "2:30", "3:20"]
    assert progress.rows()[0][2] == "running on GPU 3"
