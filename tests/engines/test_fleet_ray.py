"""A fleet on Ray itself, with a fake engine in real actors: what is killed, frozen or broken, and what listens."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines.test_settings_and_start import TURBO
from tests.support.commands import PROJECT
from tests.support.corpora import put
from tests.support.fakes import NO_GPU, FakeEngine
from tests.support.fleets import DyingEngine, EngineThatDoesNotStart, EngineThatStartsLong, SlowFakeEngine
from tests.support.leftovers import called
from whisperbench.engines import fleet_ray
from whisperbench.engines.fleet import Fleet
from whisperbench.engines.fleet_session import connect, disconnect
from whisperbench.engines.seam import Clip, StartEngine
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.errors import AudioError, EngineError
from whisperbench.inputs.corpus import load_corpus
from whisperbench.measure.clock import clips_of
from whisperbench.options.benchmark import BenchmarkConfig

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("FLEET_ROUNDS", "2"))
"""Of killed actors; a longer look takes 40."""


@pytest.fixture(scope="module")
def private_ray() -> Iterator[Any]:
    """One for all tests here: it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))
        yield connect("", cpus=8)
        disconnect()


@pytest.fixture(autouse=True)
def kept(private_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that is closed leaves Ray to the next test."""
    monkeypatch.setattr(fleet_ray, "disconnect", lambda: None)


def settings_of(engines: int = 2, max_num_seqs: int = 8) -> EngineSettings:
    checkpoint = dataclasses.replace(TURBO, path="/nowhere")
    return engine_settings(BenchmarkConfig(gpus=engines, max_num_seqs=max_num_seqs), checkpoint, NO_GPU)


@contextlib.contextmanager
def fleet_of(folder: Path, start: StartEngine = SlowFakeEngine) -> Iterator[Fleet]:
    fleet = fleet_ray.start_fleet(settings_of(), NO_GPU, folder / "engine.log", start)
    try:
        yield fleet
    finally:
        fleet.close()


def demo(times: int = 12) -> list[Clip]:
    """The demo's 8 clips again and again, each with an index of its own."""
    found = clips_of(load_corpus("demo", "all", 0).utterances)
    return [dataclasses.replace(clip, index=clip.index + 8 * i) for i in range(times) for clip in found]


def engine_processes(fleet: Fleet) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in sorted(fleet.pids() - {os.getpid()})]


def expected() -> dict[int, str]:
    return {text.index: text.text for text in FakeEngine().transcribe(demo())}


def test_two_engines_give_what_one_gives(tmp_path: Path, private_ray: Any) -> None:
    """Every text once and the same; each engine in a process of its own, as important as others, with its own log."""
    with fleet_of(tmp_path) as fleet:
        texts = list(fleet.transcribe(demo()))
        processes = engine_processes(fleet)
        assert fleet.facts.engines == len(processes) == 2
        assert [process.nice() for process in processes] == [psutil.Process().nice()] * 2
        cores = [set(process.cpu_affinity()) for process in processes]
        assert cores[0] != cores[1] or len(os.sched_getaffinity(0)) == 1
    assert sorted((text.index, text.text) for text in texts) == sorted(expected().items())
    assert len(texts) == 96
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["engine-0.log", "engine-1.log"]


def test_nothing_listens_to_other_hosts(private_ray: Any) -> None:
    """Neither Ray's processes nor the engines'; and the token is nobody's but this process's."""
    of_ray = [psutil.Process(), *psutil.Process().children(recursive=True)]
    heard = {each.laddr.ip for process in of_ray for each in connections(process) if each.status == "LISTEN"}
    assert heard
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert os.environ["RAY_AUTH_MODE"] == "token"


def connections(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.Error):
        return list(process.net_connections("tcp"))
    return []


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_actor_that_is_killed_or_stands_still_loses_nothing(tmp_path: Path, how: str) -> None:
    """Its clips go to the other, the pass says so, and its process is gone soon."""
    with fleet_of(tmp_path) as fleet:
        fleet.signs.silent_seconds = 8.0  # more than the 5 s after which an idle member answers
        victim = engine_processes(fleet)[1]
        texts = []
        for text in fleet.transcribe(demo()):
            texts.append(text)
            if len(texts) == 20:
                victim.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        assert sorted((text.index, text.text) for text in texts) == sorted(expected().items())
        assert fleet.last_pass is not None
        assert len(fleet.last_pass.lost) == 1
        assert gone([victim], 10)


def test_an_engine_that_dies_in_its_actor_loses_nothing(tmp_path: Path) -> None:
    """Its own words are in what the pass says."""
    with fleet_of(tmp_path, DyingEngine) as fleet:
        texts = list(fleet.transcribe(demo()))
        assert sorted(text.index for text in texts) == list(range(96))
        assert fleet.last_pass is not None
        assert "engine 1" in fleet.last_pass.lost[0]
        assert "out of memory" in fleet.last_pass.lost[0]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """The error is the engine's own, not Ray's traceback."""
    put(tmp_path, "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    clips = [Clip(i, tmp_path / name) for i, name in enumerate(["good.wav", "bad.wav"])]
    with fleet_of(tmp_path) as fleet, pytest.raises(AudioError, match=r"^\S*bad\.wav") as caught:
        list(fleet.transcribe(clips))
    assert "Traceback" not in str(caught.value)


def test_an_engine_that_does_not_start_says_which_and_why(tmp_path: Path, private_ray: Any) -> None:
    """With its log, and no engine is left."""
    with pytest.raises(EngineError, match=r"^engine [01]: The engine did not start: out of memory") as caught:
        fleet_ray.start_fleet(settings_of(), NO_GPU, tmp_path / "engine.log", EngineThatDoesNotStart)
    assert caught.value.log == tmp_path / f"engine-{str(caught.value)[7]}.log"
    assert gone(called("FleetMember", psutil.Process().children(recursive=True)), 10)


@contextlib.contextmanager
def one_is_stopped_after(log: Path) -> Iterator[list[psutil.Process]]:
    """Stop the actor that writes this log, as soon as there is one; the block is given a list that it is put into."""
    stopped: list[psutil.Process] = []
    over = threading.Event()

    def stop() -> None:
        while not log.exists() and not over.wait(0.1):
            pass
        actors = called("FleetMember", psutil.Process().children(recursive=True))
        stopped.append(max(actors, key=lambda process: process.create_time()))
        stopped[0].suspend()

    thread = threading.Thread(target=stop)
    thread.start()
    yield stopped
    over.set()
    thread.join()


def test_an_actor_that_stands_still_while_its_engine_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit ends the start, with the engine's name, and nothing of it is left."""
    monkeypatch.setattr(fleet_ray, "SILENT_SECONDS", 4.0)
    said = pytest.raises(EngineError, match=r"^engine \d gave no sign of life for 4 s while it started")
    with one_is_stopped_after(tmp_path / "engine-1.log") as stopped, said:
        fleet_ray.start_fleet(settings_of(), NO_GPU, tmp_path / "engine.log", EngineThatStartsLong)
    assert gone(stopped, 10)


def test_an_actor_that_stands_still_in_the_warm_up(tmp_path: Path) -> None:
    """As before the clock any engine that is lost: the end, within the limit."""
    with fleet_of(tmp_path) as fleet:
        fleet.signs.silent_seconds = 8.0
        victim = engine_processes(fleet)[1]
        victim.suspend()
        with pytest.raises(EngineError, match=r"was lost before the clock started: no sign of life for 8 s"):
            fleet.warm_up(demo(1), demo(1))
        assert gone([victim], 10)


def test_random_rounds_of_killed_actors(tmp_path: Path) -> None:
    """Each of several fleets of three loses one or two actors at random moments: every text once."""
    chance = random.Random(7)  # noqa: S311 - a test's order, not a secret
    clips, count = demo(22), 176
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        fleet = fleet_ray.start_fleet(settings_of(3), NO_GPU, folder / "engine.log", SlowFakeEngine)
        with contextlib.closing(fleet):
            victims = chance.sample(engine_processes(fleet), chance.randint(1, 2))
            moments = sorted(chance.sample(range(10, 150), len(victims)))
            found: list[int] = []
            for text in fleet.transcribe(clips):
                found.append(text.index)
                if moments and len(found) == moments[0]:
                    del moments[0]
                    victims.pop().kill()
            assert sorted(found) == list(range(count))
            assert fleet.last_pass is not None
            assert fleet.last_pass.lost


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether they end within that time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
