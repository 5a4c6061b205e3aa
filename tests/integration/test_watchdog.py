"""An engine that makes no progress is ended with a cause; one that works, or fails by itself, is left alone."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.fakes import FakeEngine
from whisperbench.engines.watchdog import Heartbeat, stall_limit, start_limit
from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants


class ProcessEngine(FakeEngine):
    """Has a process of its own, as a client of vLLM has."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.process = process

    def pids(self) -> set[int]:
        return super().pids() | {self.process.pid}


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[bytes]]:
    """A stopped process, which does not react to SIGTERM either."""
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def test_a_stopped_process_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """The error of its client names the stall, not the death of the process that follows."""
    with pytest.raises(EngineError, match=r"no progress for 0\.01 minutes .* stall_minutes"):  # noqa: SIM117
        with stall_limit(ProcessEngine(stopped), 0.6) as heartbeat:
            raise EngineError(f"The engine died while it worked: {heartbeat.ticks} {stopped.wait(30)}")
    assert stopped.wait(1) == -signal.SIGKILL


def test_an_engine_that_works_is_left_alone(stopped: subprocess.Popen[bytes]) -> None:
    """Any tick of its heartbeat counts; without a limit (stall_minutes=none) none is needed."""
    engine = ProcessEngine(stopped)
    engine.heartbeat = Heartbeat()
    with stall_limit(engine, 0.6) as heartbeat:
        assert heartbeat is engine.heartbeat
        for _ in range(12):
            time.sleep(0.1)
            heartbeat.tick()
    with stall_limit(engine, 0), start_limit(descendants() - {psutil.Process(stopped.pid)}, 0):
        time.sleep(0.3)
    assert stopped.poll() is None


def test_a_start_whose_process_is_stopped_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """The message names the limit and the option to change."""
    with pytest.raises(EngineError, match=r"did not start within 0\.01 minutes .* stall_minutes=none"):  # noqa: SIM117
        with start_limit(descendants() - {psutil.Process(stopped.pid)}, 0.6):
            raise EngineError(f"did not start: {stopped.wait()}")
    assert stopped.wait(1) == -signal.SIGKILL


def test_an_error_of_its_own_stays(stopped: subprocess.Popen[bytes]) -> None:
    """The limits do not replace the error of an engine that dies before."""
    for limit in (stall_limit(ProcessEngine(stopped), 60), start_limit(set(), 60)):
        with pytest.raises(EngineError, match="out of memory"), limit:
            raise EngineError("out of memory")
    assert stopped.poll() is None
