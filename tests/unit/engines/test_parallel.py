"""Several engines without Ray: each utterance has exactly one result, even if engines fail."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes import NO_GPU, one_gpu
from tests.support.parallel import InProcessHandle, QuickEngine, ReadAheadEngine, clips
from whisperbench.checkpoint.architecture import Architecture
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.checkpoint.tokenizer import special_ids
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import Corpus, Utterance
from whisperbench.engines.base import PassUsage, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.parallel import worker as worker_module
from whisperbench.engines.parallel.dispatch import MAX_CHUNK, Dispatcher
from whisperbench.engines.parallel.engine import ParallelEngine
from whisperbench.engines.parallel.ray_cluster import Placement, placements
from whisperbench.engines.parallel.worker import GATHER_SECONDS, EngineWorker
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.watchdog import Heartbeat
from whisperbench.errors import AudioError, EngineError
from whisperbench.measure.timing import run_timed_passes

ROUNDS, UTTERANCES = 40, 175
TURBO = Checkpoint("a/turbo", "/x", None, Architecture(1280, 32, 4, 128, 51_866), special_ids(51_866))
ENGINE_SETTINGS = engine_settings(BenchmarkConfig(), TURBO, NO_GPU)


def engine_of(*engines: QuickEngine, max_in_flight: int = 16) -> ParallelEngine:
    return ParallelEngine(handles_of(*engines), max_in_flight)


def handles_of(*engines: QuickEngine) -> list[InProcessHandle]:
    return [InProcessHandle(f"engine {i}", engine) for i, engine in enumerate(engines)]


def one_result_each(engine: ParallelEngine, count: int) -> bool:
    """Whether a pass over `count` utterances returns exactly one result for each, the right one."""
    texts = list(engine.transcribe(clips(count)))
    right = all(text.hypothesis == f"clip {text.utt_id}" for text in texts)
    return right and Counter(text.utt_id for text in texts) == Counter(map(str, range(count)))


def at_clip(number: int, action: Callable[[], object]) -> Callable[[Utterance], None]:
    """Call `action` when an engine begins its utterance with that number."""
    begun = iter(range(10**9))

    def before(_clip: Utterance) -> None:
        if next(begun) == number:
            action()

    return before


def fail() -> NoReturn:
    raise EngineError("out of memory")


def failures(engine: ParallelEngine) -> tuple[str, ...]:
    assert engine.last_pass is not None
    return engine.last_pass.failed


@given(count=st.integers(0, 200), engines=st.integers(1, 9), window=st.integers(1, 64), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_the_dispatcher_accepts_one_result_per_clip(count: int, engines: int, window: int, seed: int) -> None:
    """The order of results is random, and engines fail as long as another remains."""
    chance = random.Random(seed)  # noqa: S311 - a test's order, not a secret
    dispatcher = Dispatcher(clips(count), list(range(engines)), window)
    alive = list(range(engines))
    held: dict[int, list[str]] = {engine: [] for engine in alive}
    accepted: list[str] = []
    while dispatcher.unfinished:
        for engine, some, _ in dispatcher.assign():
            held[engine] += [clip.utt_id for clip in some]
            assert len(held[engine]) <= max(window, 4)
        if len(alive) > 1 and chance.random() < 0.1:
            failed = alive.pop(chance.randrange(len(alive)))
            dispatcher.remove(failed)
            assert not any(dispatcher.accept(failed, index) for index in held[failed])
            continue
        engine = chance.choice([each for each in alive if dispatcher.held(each)] or alive)
        if held[engine]:
            index = held[engine].pop(chance.randrange(len(held[engine])))
            if dispatcher.accept(engine, index):
                accepted.append(index)
                assert not dispatcher.accept(engine, index)
    assert sorted(accepted, key=int) == [str(number) for number in range(count)]


def test_the_next_chunk_goes_to_the_engine_that_holds_least() -> None:
    """Chunks are small; after the last chunk, even after a failure, no engine waits for more."""
    dispatcher = Dispatcher(clips(100), ["a", "b"], 20)
    assert [(engine, len(some)) for engine, some, _ in dispatcher.assign()] == [("a", 4), ("b", 4)] * 5
    assert dispatcher.assign() == []
    dispatcher = Dispatcher(clips(6), ["a", "b"], 20)
    assert [more for _, _, more in dispatcher.assign()] == [True, True, True, False, False]
    dispatcher.remove("a")
    assert [(len(some), more) for _, some, more in dispatcher.assign()] == [(3, True), (0, False)]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_failures_neither_lose_nor_repeat_a_clip(seed: int) -> None:
    """Engines are killed, raise an error or stop at random moments; one engine remains."""
    chance = random.Random(seed)  # noqa: S311 - a test's order, not a secret
    count = chance.randint(2, 4)
    faults = {i: chance.choice(["killed", "raises", "stopped"]) for i in range(1, count) if chance.random() < 0.7}
    engines = [QuickEngine(chance.choice([0.0, 0.0005])) for _ in range(count)]
    handles = handles_of(*engines)
    for i, kind in faults.items():
        action = fail if kind == "raises" else getattr(handles[i], kind).set
        engines[i].before = at_clip(chance.randrange(60), action)
    engine = ParallelEngine(handles, 16)
    engine.silent_seconds = 2.0
    assert one_result_each(engine, UTTERANCES)
    assert len(failures(engine)) <= len(faults)


def test_a_pass_names_the_engines_that_failed_and_why() -> None:
    """Later passes report the failure as well."""
    engine = engine_of(QuickEngine(0.001), QuickEngine(0.001, at_clip(3, fail)))
    for _ in range(2):
        assert one_result_each(engine, 50)
        assert failures(engine) == ("engine 1 on here failed (EngineError: out of memory)",)


def test_time_in_which_the_driver_is_stopped_does_not_count() -> None:
    """The whole machine may have been paused for longer than the limits."""
    running = threading.Event()
    running.set()
    engine = engine_of(*(QuickEngine(0.001, lambda _clip: running.wait() and None) for _ in range(2)))
    engine.silent_seconds = engine.stall_seconds = 2.5
    results = engine.transcribe(clips(200))
    next(results)
    running.clear()
    time.sleep(4)
    threading.Timer(0.2, running.set).start()
    assert len(list(results)) == 199
    assert failures(engine) == ()


def test_a_slow_or_idle_engine_does_not_fail() -> None:
    """One needs a long time between two results while its heartbeat ticks; the other has no work."""
    slow, over = QuickEngine(2.5), threading.Event()
    heartbeat = slow.heartbeat = Heartbeat()
    engine = engine_of(slow, QuickEngine(), max_in_flight=2)
    engine.stall_seconds = engine.silent_seconds = 1.0

    def beat() -> None:
        while not over.wait(0.1):
            heartbeat.tick()

    threading.Thread(target=beat, daemon=True).start()
    assert one_result_each(engine, 5)
    over.set()
    assert failures(engine) == ()


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("stopped", "TimeoutError: no answer for 1 s"),
        ("stalls", "TimeoutError: no progress for 0.025 minutes, which is the limit stall_minutes"),
        ("killed", "ConnectionError: The actor died"),
    ],
)
@pytest.mark.parametrize("timed", [True, False])
def test_a_fault_fails_the_engine_and_before_the_timed_region_the_run(fault: str, cause: str, timed: bool) -> None:
    """The description has the engine's name and the cause; in the timed region the other engine does the work."""
    over = threading.Event()
    engines = QuickEngine(0.05 if timed else 0.0), QuickEngine()
    handles = handles_of(*engines)
    engine = ParallelEngine(handles, 16)
    engine.silent_seconds, engine.stall_seconds = 1.0, 1.5
    action = (lambda: over.wait(30)) if fault == "stalls" else getattr(handles[1], fault).set
    engines[1].before = at_clip(5, action)
    failed = f"engine 1 on here failed ({cause})"
    if timed:
        assert one_result_each(engine, 60)
        assert failures(engine) == (failed,)
        assert fault != "stalls" or engine.heartbeat.longest_pause > 1.4
    else:
        engine.warm_up(clips(3), clips(3))
        with pytest.raises(EngineError) as caught:
            engine.single_gpu_rates(clips(9))
        assert str(caught.value) == f"{failed} before the timed region."
    over.set()


def test_without_engines_the_pass_ends() -> None:
    """The message has the number of utterances that are left, and the failure of each engine."""
    engine = engine_of(QuickEngine(0, at_clip(3, fail)), QuickEngine(0, at_clip(3, fail)))
    message = r"All engines failed, and \d+ utterances are left\. engine (\d) on here.*; engine (?!\1)\d on"
    with pytest.raises(EngineError, match=message):
        list(engine.transcribe(clips(100)))


def test_a_broken_file_ends_the_pass() -> None:
    """The file would make every engine fail in turn."""

    def broken(clip: Utterance) -> None:
        if clip.utt_id == "7":
            raise AudioError("7.flac cannot be decoded")

    with pytest.raises(AudioError, match=r"7\.flac"):
        list(engine_of(QuickEngine(0, broken), QuickEngine(0, broken)).transcribe(clips(100)))


@pytest.mark.parametrize("batch", [1, 7])
def test_engines_that_read_ahead_get_enough_clips(batch: int) -> None:
    """An engine has room for what it reads ahead and the next chunk; the last batch may be incomplete."""
    engine = engine_of(ReadAheadEngine(batch), ReadAheadEngine(batch), max_in_flight=3 * batch + MAX_CHUNK)
    assert one_result_each(engine, 151)
    assert one_result_each(engine, 5)


def test_a_slow_engine_gets_fewer_clips() -> None:
    """`slowest_engine_percent` shows how much less it transcribed."""
    engine = engine_of(QuickEngine(0.002), QuickEngine(0.002), QuickEngine(0.02), max_in_flight=4)
    assert one_result_each(engine, 200)
    assert engine.last_pass is not None
    assert engine.last_pass.slowest_engine_percent < 60


def test_a_measurement_with_two_engines(tmp_path: Path) -> None:
    """Each engine has a warm-up and a rate alone; every copy of the corpus is transcribed."""
    engines = QuickEngine(0.001), QuickEngine(0.001)
    utterances = Corpus("c", "all", tuple(clips(40, tmp_path)), "c").copied(3)
    seen: list[str] = []
    found = run_timed_passes(
        engine_of(*engines),
        utterances,
        repeats=2,
        warmup=3,
        hardware=NO_GPU,
        on_result=[lambda result: seen.append(result.utt_id)],
    )
    assert all(engine.seen[:3] == ["0", "1", "2"] for engine in engines)
    assert len(found.single_gpu_rates) == 2
    assert Counter(seen) == Counter({u.utt_id: 2 for u in utterances})
    assert found.median.usage is not None
    assert found.median.invalid is None


def test_the_engines_of_a_gpu_are_timed_together_and_gpus_in_turn() -> None:
    """The engines of a GPU transcribe the same utterances; with a single GPU no rate is measured."""
    turns: list[int] = []
    engines = [QuickEngine(before=lambda _, gpu=i % 2: turns.append(gpu)) for i in range(4)]
    handles = [InProcessHandle(f"engine {i}", engine, device=str(i % 2)) for i, engine in enumerate(engines)]
    assert ParallelEngine(handles[::2], 16).single_gpu_rates(clips(40)) == []
    assert len(ParallelEngine(handles, 16).single_gpu_rates(clips(40))) == 2
    assert turns == [0] * 20 + [1] * 20
    assert [len(engine.seen) for engine in engines] == [10] * 4


@pytest.mark.parametrize("changed", ["model.bin", "0.flac"])
def test_another_host_must_have_the_same_files(tmp_path: Path, changed: str) -> None:
    """Sizes are compared; the message has the path and the host."""
    for name in ("model.bin", "0.flac"):
        (tmp_path / name).write_bytes(b"some bytes")

    class Elsewhere(InProcessHandle):
        def run(self, _sizes: Callable[..., object], *arguments: Any) -> Future[Any]:
            there = [5 if file.name == changed else 10 for file in arguments[0]]
            return super().run(lambda: there)

    engine = ParallelEngine([Elsewhere("engine 0", QuickEngine(), "far")], 16)
    engine.checkpoint = tmp_path
    with pytest.raises(EngineError, match=rf"{changed} differs: 10 bytes on .*, 5 bytes on far"):
        engine.warm_up([], clips(1, tmp_path))


@pytest.mark.parametrize(
    ("audio", "finished", "share", "tail"),
    [((10.0, 10.0, 8.0), (5.0, 5.2, 4.9), 80.0, 0.3), ((7.0,), (3.0,), 100.0, 0.0), ((), (), 100.0, 0.0)],
)
def test_usage_of_a_pass(audio: tuple[float, ...], finished: tuple[float, ...], share: float, tail: float) -> None:
    """Audio of the slowest engine in percent of the median, and idle time at the end."""
    found = PassUsage(audio, finished, 0.0)
    assert found.slowest_engine_percent == pytest.approx(share)
    assert found.tail_seconds == pytest.approx(tail)


def test_closing_closes_every_engine() -> None:
    """The others are closed even if one engine does not answer."""
    engines, closed = (QuickEngine(), QuickEngine()), threading.Event()
    handles = handles_of(*engines)
    handles[0].killed.set()
    ParallelEngine(handles, 4, on_close=closed.set).close()
    assert engines[1].closed
    assert closed.is_set()


def test_a_worker_uses_the_gpu_that_ray_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of another type is refused, because the run records one type."""
    given = []

    def start(_settings: object, hardware: Hardware, _log: Path) -> QuickEngine:
        given.append(hardware)
        return QuickEngine()

    chosen = one_gpu("NVIDIA A10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(worker_module, "detect_hardware", {"3": chosen}.__getitem__)
    worker = EngineWorker(Placement("engine 0", one_gpu("NVIDIA A10", 1), gpu_share=1.0))
    _, device, _, _ = worker.start(start, ENGINE_SETTINGS, Path())
    worker.close()
    assert (given, device) == ([chosen], chosen.devices[0].uuid)
    worker = EngineWorker(Placement("engine 0", one_gpu("NVIDIA H100"), gpu_share=1.0))
    with pytest.raises(EngineError, match=r"Ray chose a NVIDIA A10 on .* instead of a NVIDIA H100"):
        worker.start(start, ENGINE_SETTINGS, Path())


def test_each_engine_has_one_device() -> None:
    """Engines of one GPU have the same; without GPUs an engine may use none."""
    device = one_gpu("NVIDIA A10").devices[0]
    two = Hardware("CPU", (device, dataclasses.replace(device, uuid="GPU-2")))
    shared = dataclasses.replace(ENGINE_SETTINGS, engines=4, engines_per_gpu=2)
    found = [each.hardware.environment["CUDA_VISIBLE_DEVICES"] for each in placements(shared, two)]
    assert found == [device.uuid, "GPU-2"] * 2
    cpu = placements(dataclasses.replace(ENGINE_SETTINGS, engines=2), NO_GPU)
    assert [each.hardware.environment["CUDA_VISIBLE_DEVICES"] for each in cpu] == ["", ""]


def test_results_come_several_in_one_call() -> None:
    """This saves CPU time; the last results of a pass are returned without delay."""
    worker = EngineWorker(Placement("engine 0", NO_GPU))
    worker.drive(QuickEngine(0.001))
    worker.submit(clips(200), more=True)
    answers: list[list[Transcription]] = []
    while sum(map(len, answers)) < 200:
        answers.append(worker.results()[0])
    assert len(answers) < 40
    worker.submit(clips(1), more=True)
    started = time.perf_counter()
    assert len(worker.results()[0]) == 1
    assert time.perf_counter() - started < GATHER_SECONDS
