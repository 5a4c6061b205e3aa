"""The descendants of a process end with it when it is killed or fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.commands import FAKE_BENCHMARK, kill_with_guardian, python_path, run
from whisperbench.processes.guardian import is_tracker, kill

PROGRAM = """
import os, signal, subprocess, sys, time
from whisperbench.processes.guardian import kill_children_on_exit
with kill_children_on_exit():
    children = [subprocess.Popen(['bash', '-c', 'sleep 60 & wait']) for _ in range(2)]
    print(*(child.pid for child in children), flush=True)
    time.sleep(1.5)
    if sys.argv[1] == 'killed': os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == 'raises': sys.exit('failed')
"""


def gone_and_left(end: str) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The children and grandchildren of a process that have ended soon after it, and those that have not."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, end], env=python_path(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        time.sleep(0.5)  # bash starts theirs
        family = [*children, *(grandchild for child in children for grandchild in child.children())]
        process.wait(20)
    gone, left = psutil.wait_procs(family, timeout=10 if end == "killed" else 3)
    for each in left:
        each.kill()
    return gone, left


@pytest.mark.parametrize("end", ["killed", "normally"])
def test_descendants_end_with_a_killed_process_only(end: str) -> None:
    """Those of children too; a process that ends normally leaves what it has started."""
    gone, left = gone_and_left(end)
    assert (left if end == "killed" else gone) == []


def test_descendants_end_with_a_block_that_raises() -> None:
    """As a signal does while an engine starts, before it can be closed."""
    assert gone_and_left("raises")[1] == []


AT_ONCE = """
import os, signal, subprocess
from whisperbench.processes.guardian import kill_children_on_exit
with kill_children_on_exit():
    child = subprocess.Popen(['sleep', '60'])
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_started_the_moment_before_ends_too() -> None:
    """The guardian has not seen it as a child, and finds it by a variable in its environment."""
    with subprocess.Popen(
        [sys.executable, "-c", AT_ONCE], env=python_path(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.wait(20)
    gone, left = psutil.wait_procs([child], timeout=20)
    for each in left:
        each.kill()
    assert gone


ENGINE = """
import multiprocessing, os, sys, time
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.processes.watch import end_with_parent

def engine(pipe, late):
    if not late: end_with_parent()
    pipe.send(os.getpid())
    while late and os.getppid() == multiprocessing.parent_process().pid: time.sleep(0.01)
    end_with_parent()
    time.sleep(60)

if __name__ == '__main__':
    with kill_children_on_exit():
        ours, theirs = multiprocessing.Pipe()
        multiprocessing.get_context('spawn').Process(target=engine, args=(theirs, 'late' in sys.argv)).start()
        print(ours.recv(), flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("when", ["working", "late"])
def test_an_engine_ends_with_its_client_without_a_guardian(when: str, tmp_path: Path) -> None:
    """`killall -9 python` kills both; a client that has ended before its engine asks the kernel is noticed too."""
    (tmp_path / "client.py").write_text(ENGINE)
    command = [sys.executable, tmp_path / "client.py", when]
    with subprocess.Popen(command, env=python_path(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        engine = psutil.Process(int(process.stdout.readline()))
        kill_with_guardian(process.pid)
    gone, left = psutil.wait_procs([engine], timeout=20)
    for each in left:
        each.kill()
    assert gone


def test_a_results_dir_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    """It is printed without a traceback and without a line of the guardian."""
    (tmp_path / "results").touch()
    options = {"model": "demo", "corpus": "demo", "offline": "true", "results_dir": "results/here"}
    status, _, stderr = run(FAKE_BENCHMARK, tmp_path, options)
    errors = [line for line in stderr.splitlines() if "checking audio" not in line]
    assert (status, len(errors)) == (2, 1), stderr
    assert f"results_dir={tmp_path}/results/here cannot be written" in errors[0]


def test_the_resource_tracker_of_python_is_spared() -> None:
    """It removes the shared memory of a process that is killed."""
    code = "import time; from multiprocessing.shared_memory import SharedMemory as S; m = S(create=True, size=4096)"
    code += "; print(m.name, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        segment = Path("/dev/shm", process.stdout.readline().strip())  # noqa: S108 - the system's
        assert segment.is_file()
        owner, deadline = psutil.Process(process.pid), time.monotonic() + 60
        while not any(map(is_tracker, owner.children())):  # forked, it has its owner's name until it begins
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill([owner])
    deadline = time.monotonic() + 60
    try:
        while segment.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        segment.unlink(missing_ok=True)
