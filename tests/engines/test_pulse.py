"""An engine that stops working for good is ended with a cause; one that pauses is told apart from one that is slow."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import psutil
import pytest

from tests.support.fakes import FakeEngine
from whisperbench.engines import pulse
from whisperbench.engines.pulse import Pulse, StallWatch, StartWatch
from whisperbench.engines.seam import Clip, Text
from whisperbench.errors import EngineError
from whisperbench.supervise.orphans import descendants


class ProcessEngine(FakeEngine):
    """Waits for a process of its own, as a client waits for vLLM's, and says that it died when it is gone."""

    def __init__(self, process: subprocess.Popen[bytes], pulse: Pulse | None = None) -> None:
        super().__init__()
        self.process = process
        if pulse:
            self.pulse = pulse

    def pids(self) -> set[int]:
        return super().pids() | {self.process.pid}

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        for clip in clips:
            self.process.wait(30)
            raise EngineError(f"The engine died while it worked on {clip.index}")
        yield from ()


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing any more, and does not hear a SIGTERM either."""
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def clip(index: int = 0) -> Clip:
    return Clip(index, audio=None)  # type: ignore[arg-type] - nobody reads it


def test_a_stopped_process_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """Its client is told, and the cause is the stall, not the death that it led to."""
    engine, started = ProcessEngine(stopped), time.monotonic()
    with pytest.raises(EngineError, match=r"no progress for 0\.01 minutes .* stall_minutes"):  # noqa: SIM117
        with StallWatch(engine, 0.6) as watch:
            list(engine.transcribe(watch.pulse.of([clip()])))
    assert stopped.wait(1) == -signal.SIGKILL
    assert 0.5 < time.monotonic() - started < 10


def test_an_engine_that_works_is_left_alone(stopped: subprocess.Popen[bytes]) -> None:
    """Any beat counts: a clip that is taken, a text, or what the engine itself tells of its work between two texts."""
    own = Pulse()
    with StallWatch(ProcessEngine(stopped, own), 0.6) as watch:
        assert watch.pulse is own
        for _ in range(12):
            time.sleep(0.1)
            own.beat()
    assert not watch.stalled
    assert stopped.poll() is None


def test_without_a_limit_nothing_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """stall_minutes=0."""
    with StallWatch(ProcessEngine(stopped), 0) as watch:
        time.sleep(0.3)
    assert not watch.stalled
    assert stopped.poll() is None


def test_an_error_of_its_own_stays(stopped: subprocess.Popen[bytes]) -> None:
    """An engine that dies before the limit is no stalled one."""
    with pytest.raises(EngineError, match="out of memory"), StallWatch(ProcessEngine(stopped), 60):
        raise EngineError("out of memory")


def test_a_pause_that_no_work_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty seconds, and three times what the warm-up held; here tenths of them."""
    monkeypatch.setattr(pulse, "FROZEN_SECONDS", 0.3)
    with StallWatch(FakeEngine(), 0) as watch:
        taken = watch.pulse.of(map(clip, range(3)))
        next(taken)
        time.sleep(0.35)
        next(taken)
    frozen = watch.frozen_seconds(usual=0.05)
    assert frozen is not None
    assert 0.35 <= frozen < 5
    assert watch.frozen_seconds(usual=frozen / 2) is None
    with StallWatch(FakeEngine(), 0) as again:
        again.pulse.beat()
    assert again.frozen_seconds(usual=0.0) is None


def end_of_start(process: subprocess.Popen[bytes], limit_seconds: float) -> str:
    """Wait for an engine's process that starts, as vLLM does, and what is said when it is gone."""
    with pytest.raises(EngineError) as caught:  # noqa: SIM117
        with StartWatch(descendants() - {psutil.Process(process.pid)}, limit_seconds):
            raise EngineError(f"did not start: {process.wait()}")
    return str(caught.value)


def test_a_start_whose_process_is_stopped_is_ended(stopped: subprocess.Popen[bytes]) -> None:
    """Nobody else would ever notice; the sentence says what may be wrong, and names the limit."""
    assert re.search(
        r"start of the engine made no progress for 0\.01 minutes .* stall_minutes", end_of_start(stopped, 0.6)
    )
    assert stopped.wait(1) == -signal.SIGKILL


@pytest.mark.parametrize(
    "work",
    [
        "end = time.process_time() + 0.02\n while time.process_time() < end: pass",
        "os.pread(file, 60_000, 0)",
    ],
    ids=["computes", "reads"],
)
def test_a_slow_start_is_left_alone(work: str) -> None:
    """A tenth of a core, or half a megabyte a second from a slow disk, is far from stopped."""
    code = f"import os, time\nfile = os.open('/dev/zero', 0)\nfor _ in range(20):\n time.sleep(0.1)\n {work}"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        assert end_of_start(process, 1.2) == "did not start: 0"


def test_a_start_that_fails_by_itself_stays_one(stopped: subprocess.Popen[bytes]) -> None:
    """Its own cause is told; and stall_minutes=0 waits."""
    with pytest.raises(EngineError, match="out of memory"), StartWatch(set(), 60):
        raise EngineError("out of memory")
    with StartWatch(descendants() - {psutil.Process(stopped.pid)}, 0):
        time.sleep(0.3)
    assert stopped.poll() is None
