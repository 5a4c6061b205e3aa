"""Several engines on Ray itself: small engines in real actors, which are killed, stopped or raise."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.checkpoints import random_weights
from tests.support.commands import PROJECT, called, still_running
from tests.support.corpora import put
from tests.support.fakes import DELAY_VARIABLE, NO_GPU, FakeEngine
from tests.support.leftovers import wait_for_none
from tests.support.parallel import EngineThatDoesNotStart, EngineWithASemaphore
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import Utterance, load_corpus
from whisperbench.doctor import SHARED_MEMORY
from whisperbench.engines.base import StartEngine
from whisperbench.engines.parallel import engine as parallel_engine
from whisperbench.engines.parallel.engine import ParallelEngine, start_parallel
from whisperbench.engines.parallel.ray_cluster import connect, disconnect
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.errors import AudioError, EngineError


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EngineSettings:
    """Two engines of eight sequences; the fake engines read no checkpoint."""
    checkpoint = random_weights("tiny.en", tmp_path_factory.mktemp("checkpoint"))
    return engine_settings(BenchmarkConfig(gpus=2, max_num_seqs=8), checkpoint, NO_GPU)


@pytest.fixture(scope="module")
def private_ray() -> Iterator[Any]:
    """One for all tests here, because it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.setenv(DELAY_VARIABLE, "0.02")
        yield connect("", cpus=8)
        disconnect()


@pytest.fixture(autouse=True)
def ray_is_kept(private_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the engines leaves Ray to the next test."""
    monkeypatch.setattr(parallel_engine, "disconnect", lambda: None)


@contextlib.contextmanager
def two_engines(
    settings: EngineSettings, folder: Path, start_engine: StartEngine = FakeEngine
) -> Iterator[ParallelEngine]:
    with contextlib.closing(start_parallel(settings, NO_GPU, folder / "engine.log", start_engine)) as engine:
        yield engine


def demo(times: int = 12) -> tuple[Utterance, ...]:
    """The demo's 8 clips and their copies."""
    return load_corpus("demo", "all", None).copied(times)


def expected() -> list[tuple[str, str]]:
    return sorted((text.utt_id, text.hypothesis) for text in FakeEngine().transcribe(demo()))


def actors(engine: ParallelEngine) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in sorted(engine.pids() - {os.getpid()})]


def test_two_engines_give_the_results_of_one(settings: EngineSettings, tmp_path: Path) -> None:
    """Each in a process at normal priority, with its own cores and its own log."""
    with two_engines(settings, tmp_path) as engine:
        texts = [(text.utt_id, text.hypothesis) for text in engine.transcribe(demo())]
        processes = actors(engine)
        assert engine.info.engines == len(processes) == 2
        assert [process.nice() for process in processes] == [psutil.Process().nice()] * 2
        cores = [set(process.cpu_affinity()) for process in processes]
        assert cores[0] != cores[1] or len(os.sched_getaffinity(0)) == 1
    assert sorted(texts) == expected()
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["engine-0.log", "engine-1.log"]


def test_a_private_ray_is_closed_to_other_hosts() -> None:
    """Every socket of Ray and of the engines listens to this host only, and Ray asks for its token."""
    addresses = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            addresses |= {each.laddr.ip for each in process.net_connections("tcp") if each.status == "LISTEN"}
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_actor_that_is_killed_or_stopped_loses_no_clip(
    settings: EngineSettings, tmp_path: Path, number: signal.Signals
) -> None:
    """The other engine transcribes its clips, and its process is soon gone."""
    with two_engines(settings, tmp_path) as engine:
        engine.silent_seconds = 8.0  # more than the 5 s after which an idle worker answers
        victim, texts = actors(engine)[1], []
        for text in engine.transcribe(demo()):
            texts.append((text.utt_id, text.hypothesis))
            if len(texts) == 20:
                victim.send_signal(number)
        assert sorted(texts) == expected()
        assert engine.last_pass is not None
        assert len(engine.last_pass.failed) == 1
        assert still_running([victim], 20) == []


def test_a_broken_file_is_named(settings: EngineSettings, tmp_path: Path) -> None:
    """The error is that of the engine, without the traceback that Ray adds."""
    put(tmp_path, "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    clips = load_corpus(str(tmp_path), "all", None).utterances
    with two_engines(settings, tmp_path) as engine, pytest.raises(AudioError, match=r"^\S*bad\.wav") as caught:
        list(engine.transcribe(clips))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("start_engine", "limit", "message"),
    [
        (EngineThatDoesNotStart, 60.0, r"^engine [01]: The engine did not start: out of memory"),
        (FakeEngine, 0.0, r"^engine [01] did not start \(within 31 minutes; `ray status`"),
    ],
)
def test_an_engine_that_does_not_start(
    start_engine: StartEngine,
    limit: float,
    message: str,
    settings: EngineSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error has its name, its message and its log, and no process is left."""
    monkeypatch.setattr(parallel_engine, "START_SECONDS", limit)
    with pytest.raises(EngineError, match=message) as caught:
        start_parallel(settings, NO_GPU, tmp_path / "engine.log", start_engine)
    assert caught.value.log == tmp_path / f"engine-{str(caught.value)[7]}.log"
    assert still_running(called("EngineWorker", psutil.Process().children(recursive=True)), 20) == []


def test_no_semaphore_is_left(settings: EngineSettings, tmp_path: Path) -> None:
    """Python's resource tracker removes the semaphores of an engine process that was ended."""
    with two_engines(settings, tmp_path, EngineWithASemaphore):
        left = [SHARED_MEMORY / f"sem.{log.read_text()[1:]}" for log in tmp_path.glob("*.log")]
        assert all(path.exists() for path in left)
    assert wait_for_none(lambda: [str(path) for path in left if path.exists()], 20) == []
