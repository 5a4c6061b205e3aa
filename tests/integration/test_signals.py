"""Signals end a process, also where its code swallows them or its closing hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.commands import interrupt, python_path
from whisperbench.processes import signals
from whisperbench.processes.signals import Interrupted, signals_raise
from whisperbench.processes.watch import LAUNCHER

pytestmark = pytest.mark.usefixtures("no_project_run")


class TestSignals:
    def test_once_is_enough(self) -> None:
        """A second signal does not interrupt the closing of the engine; afterwards the handlers are as before."""
        before, closed = [signal.getsignal(number) for number in signals.SIGNALS], False
        with pytest.raises(Interrupted), signals_raise():  # noqa: PT012 - raised in the middle of what follows
            try:
                interrupt()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
                closed = True
        assert closed
        assert [signal.getsignal(number) for number in signals.SIGNALS] == before

    def test_nohup(self) -> None:
        """A signal that the user has made the process ignore stays ignored."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with signals_raise() as arrived:
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.05)
            assert arrived == []
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_one_that_was_lost(self) -> None:
        """A block that swallows the exception and ends normally was interrupted all the same."""
        with pytest.raises(Interrupted, match="SIGTERM"), signals_raise():  # noqa: SIM117 - lost inside
            with contextlib.suppress(BaseException):
                interrupt()

    def test_children_are_ended_when_the_closing_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine that does not stop by itself is killed after its time."""
        monkeypatch.setattr(signals, "ENGINE_SECONDS", 0.3)
        with pytest.raises(Interrupted), signals_raise():  # noqa: PT012, SIM117 - raised in the middle of what follows
            with subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 60"]) as stubborn:
                try:
                    interrupt()
                finally:
                    assert stubborn.wait(60) == -signal.SIGKILL

    def test_a_process_that_swallows_the_signal_is_ended(self) -> None:
        """Exit status 128 + n after its time, even when nothing reacts."""
        program = (
            "import os, signal, time\n"
            "from whisperbench.processes import signals\n"
            "signals.ENGINE_SECONDS, signals.EXIT_SECONDS = 0.2, 0.4\n"
            "with signals.signals_raise():\n"
            "    try:\n"
            "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)\n"
            "    except BaseException:\n"
            "        time.sleep(60)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], env=python_path(), timeout=30, check=False)
        assert done.returncode == 128 + signal.SIGTERM


class TestLauncher:
    def test_its_death_is_a_sigterm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process whose launcher is named in its environment stops when that one has ended."""
        with subprocess.Popen(["sleep", "60"]) as starter:
            monkeypatch.setenv(LAUNCHER, str(starter.pid))
            with pytest.raises(Interrupted, match="SIGTERM"), signals_raise():  # noqa: PT012 - raised while it sleeps
                starter.kill()
                time.sleep(5)

    def test_one_that_is_gone_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ended before this process looked."""
        monkeypatch.setenv(LAUNCHER, "4194399")
        with pytest.raises(Interrupted), signals_raise():
            time.sleep(5)

    def test_the_watch_ends_with_the_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No thread of the watch is left when the run is over."""
        monkeypatch.setenv(LAUNCHER, str(os.getppid()))
        with signals_raise():
            assert [thread for thread in threading.enumerate() if thread.name == "process-watch"]
        assert not [thread for thread in threading.enumerate() if thread.name in ("process-watch", "force-exit")]
