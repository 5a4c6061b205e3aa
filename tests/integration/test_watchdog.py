"""An engine that makes no progress is ended with a cause; one that works, or fails by itself, is left alone."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.fakes import FakeEngine
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.watchdog import Heartbeat, StallWatchdog, start_limit
from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants


class ProcessEngine(FakeEngine):
    """Waits for a process of its own, as a client waits for vLLM's, and raises when it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], heartbeat: Heartbeat | None = None) -> None:
        super().__init__()
        self.process = process
        if heartbeat:
            self.heartbeat = heartbeat

    def pids(self) -> set[int]:
        return super().pids() | {self.process.pid}

    def transcribe(self, clips: Iterable[Utterance]) -> Iterator[Transcription]:
        for clip in clips:
            self.process.wait(30)
            raise EngineError(f"The engine died while it worked on {clip.utt_id}")
        yield from ()


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[bytes]]:
    """A stopped process, which does not react to SIGTERM either."""
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def clip() -> Utterance:
    """One whose file is not read."""
    return Utterance(utt_id="u", audio=Path("none"), reference=None, speaker=None)


def test_a_stopped_process_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """The error of its client names the stall, not the death of the process that follows."""
    engine = ProcessEngine(stopped)
    with pytest.raises(EngineError, match=r"no progress for 0\.01 minutes .* stall_minutes"):  # noqa: SIM117
        with StallWatchdog(engine, 0.6) as watch:
            list(engine.transcribe(watch.heartbeat.of([clip()])))
    assert stopped.wait(1) == -signal.SIGKILL


def test_an_engine_that_works_is_left_alone(stopped: subprocess.Popen[bytes]) -> None:
    """Any tick of its heartbeat counts."""
    own = Heartbeat()
    with StallWatchdog(ProcessEngine(stopped, own), 0.6) as watch:
        assert watch.heartbeat is own
        for _ in range(12):
            time.sleep(0.1)
            own.tick()
    assert not watch.stalled
    assert stopped.poll() is None


def test_without_a_limit_nothing_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """stall_minutes=0."""
    with StallWatchdog(ProcessEngine(stopped), 0) as watch:
        time.sleep(0.3)
    assert not watch.stalled
    assert stopped.poll() is None


def test_an_error_of_its_own_stays(stopped: subprocess.Popen[bytes]) -> None:
    """An engine that dies before the limit is no stalled one."""
    with pytest.raises(EngineError, match="out of memory"), StallWatchdog(ProcessEngine(stopped), 60):
        raise EngineError("out of memory")


def test_a_start_whose_process_is_stopped_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """The message names the limit and the option to change."""
    with pytest.raises(EngineError, match=r"did not start within 0\.01 minutes .* stall_minutes=0"):  # noqa: SIM117
        with start_limit(descendants() - {psutil.Process(stopped.pid)}, 0.6):
            raise EngineError(f"did not start: {stopped.wait()}")
    assert stopped.wait(1) == -signal.SIGKILL


def test_a_start_that_fails_by_itself_keeps_its_cause(stopped: subprocess.Popen[bytes]) -> None:
    """The limit does not replace another error, and a limit of 0 ends nothing."""
    with pytest.raises(EngineError, match="out of memory"), start_limit(set(), 60):
        raise EngineError("out of memory")
    with start_limit(descendants() - {psutil.Process(stopped.pid)}, 0):
        time.sleep(0.3)
    assert stopped.poll() is None
