"""The descendants of a process end with it when it is killed or fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.commands import kill_with_guardian, python_path
from whisperbench.processes.guardian import is_tracker, kill

PROGRAM = """
import os, signal, subprocess, sys, time
from whisperbench.processes.guardian import kill_children_on_exit
with kill_children_on_exit():
    children = [subprocess.Popen(['bash', '-c', 'sleep 60 & wait']) for _ in range(2)]
    print(*(child.pid for child in children), flush=True)
    if sys.argv[1] != 'killed at once': time.sleep(1.5)
    if sys.argv[1].startswith('killed'): os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == 'raises': sys.exit('failed')
"""


@pytest.mark.parametrize("end", ["killed", "killed at once", "raises", "normally"])
def test_descendants_end_with_a_process_that_is_killed_or_fails(end: str) -> None:
    """Those of children too; a process that ends normally leaves what it has started.

    The guardian has not yet seen processes that were started at once, and finds them by their environment.
    """
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, end], env=python_path(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        family = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        if end != "killed at once":
            time.sleep(0.5)  # bash starts theirs
            family += [grandchild for child in family for grandchild in child.children()]
        process.wait(20)
    gone, left = psutil.wait_procs(family, timeout=3 if end == "normally" else 20)
    for each in left:
        each.kill()
    assert (gone if end == "normally" else left) == []


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
