"""The load of the machine and of its GPUs by real processes that are not descendants of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.unit.measure.test_gpu import Nvml, readings_of
from whisperbench.measure import load
from whisperbench.measure.load import SWEEP, other_benchmark_runs, start_measuring

SLEEP = "import time; time.sleep(30)"
COUNT = "import time; end = time.monotonic() + 10\nwhile time.monotonic() < end: pass"


@contextmanager
def stranger(code: str, *words: str, **variables: str) -> Iterator[None]:
    """A process whose parent has ended, so that it is no descendant, like a process of another terminal."""
    # Without pipes (-3 is DEVNULL), which `run` would wait for.
    start = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=-3, stderr=-3).pid)"
    command = [sys.executable, "-c", start, sys.executable, "-c", code, *words]
    environment = {**os.environ, **variables}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    process = psutil.Process(int(found.stdout))
    try:
        while process.cmdline()[1:2] != ["-c"]:  # it was forked a moment ago
            time.sleep(0.01)
        yield
    finally:
        process.kill()


def busy(seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pass


def test_the_cpu_time_of_other_programs_is_separated() -> None:
    """A region of a second with a loop in this process and one in another program."""
    since_start = start_measuring(lambda: {os.getpid()})
    busy(1.1)
    alone = since_start()
    with stranger(COUNT):
        since_start = start_measuring(lambda: {os.getpid()})
        time.sleep(1.1)
        with_another = since_start()
    assert alone is not None
    assert with_another is not None
    assert alone.own > 0.2 > with_another.own
    assert with_another.other > 0.2
    assert 0 < with_another.own + with_another.other <= 1.1 * with_another.cores


def test_a_child_is_no_other_program() -> None:
    """An engine's process, whether `pids` names it or not; a short region is not assessed."""
    with subprocess.Popen([sys.executable, "-c", COUNT]) as child:
        since_start = start_measuring(set)
        assert since_start() is None
        time.sleep(1.2)
        load = since_start()
        child.kill()
    assert load is not None
    assert load.own > 0.2


@pytest.fixture
def benchmarks_of_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other benchmarks may run on the machine of the tests."""
    is_benchmark = load.is_benchmark
    monkeypatch.setattr(load, "is_benchmark", lambda words: "marked" in words and is_benchmark(words))


@pytest.mark.usefixtures("benchmarks_of_tests_alone")
@pytest.mark.parametrize(("sweep", "expected"), [(None, True), ("another", True), ("this", False)])
def test_a_concurrent_benchmark_is_found(sweep: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the same sweep has started it on another GPU."""
    monkeypatch.setenv(SWEEP, "this")
    with stranger(SLEEP, "whisperbench", "benchmark", "marked", **({SWEEP: sweep} if sweep else {SWEEP: ""})):
        assert other_benchmark_runs() is expected
    assert not other_benchmark_runs()


def test_the_server_of_cuda_mps_is_no_stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVML lists it beside the engines that it serves: a process of that name, here one that sleeps."""
    server = tmp_path / "nvidia-cuda-mps-server"
    shutil.copy("/bin/sleep", server)
    (tmp_path / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with subprocess.Popen([server, "60"]) as process:
        found = readings_of(Nvml(other_pid=process.pid), monkeypatch, samples=5)
        process.kill()
    assert found.cuda_mps
    assert found.disturbance is None
