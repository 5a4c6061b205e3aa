"""Several engines without Ray: each utterance has exactly one result, even if engines fail."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes import NO_GPU, one_gpu
from tests.support.parallel import InProcessHandle, QuickEngine, ReadAheadEngine, clips, queue_of
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


def engine_of(*engines: QuickEngine, max_in_flight: int = 16, hosts: str = "") -> ParallelEngine:
    return ParallelEngine(handles_of(*engines, hosts=hosts), max_in_flight)


def handles_of(*engines: QuickEngine, hosts: str = "") -> list[InProcessHandle]:
    return [InProcessHandle(f"engine {i}", engine, hosts[i] if hosts else "here") for i, engine in enumerate(engines)]


def once(call: Callable[[], object]) -> Callable[[Utterance], None]:
    """A callback of an engine that calls `call` before the first utterance."""
    calls = [call]

    def before(_: Utterance) -> None:
        if calls:
            calls.pop()()

    return before


def one_result_each(engine: ParallelEngine, count: int) -> bool:
    """Whether a pass over `count` utterances returns exactly one result for each, the right one."""
    texts = list(engine.transcribe(clips(count)))
    right = all(text.hypothesis == f"clip {text.utt_id}" for text in texts)
    return right and Counter(text.utt_id for text in texts) == Counter(map(str, range(count)))


def at_clip(number: int, action: Callable[[], None]) -> Callable[[Utterance], None]:
    """Call `action` when an engine begins its utterance with that number."""
    begun = iter(range(10**9))

    def before(_clip: Utterance) -> None:
        if next(begun) == number:
            action()

    return before


def fail() -> None:
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


def test_a_worker_that_does_not_answer_fails() -> None:
    """It fails after `silent_seconds`, and the other engine transcribes its utterances."""
    handles = handles_of(QuickEngine(), QuickEngine(0.001))
    handles[1].stopped.set()
    engine = ParallelEngine(handles, 16)
    engine.silent_seconds = 1.0
    assert one_result_each(engine, 60)
    assert failures(engine) == ("engine 1 on here failed (TimeoutError: no answer for 1 s)",)


def test_time_in_which_the_driver_is_stopped_does_not_count() -> None:
    """The whole machine may have been paused for longer than the limits."""
    running = threading.Event()
    running.set()
    engines = [QuickEngine(0.001, lambda _clip: running.wait() and None) for _ in range(2)]
    engine = engine_of(*engines)
    engine.silent_seconds = engine.stall_seconds = 2.5
    results = engine.transcribe(clips(200))
    next(results)
    running.clear()
    time.sleep(4)
    threading.Timer(0.2, running.set).start()
    assert len(list(results)) == 199
    assert failures(engine) == ()


def test_an_engine_that_stalls_fails() -> None:
    """Its process answers, but the engine makes no progress."""
    over = threading.Event()
    engine = engine_of(QuickEngine(0.05), QuickEngine(0, at_clip(4, lambda: over.wait(30) and None)))
    engine.stall_seconds = 1.5
    assert one_result_each(engine, 60)
    over.set()
    (failed,) = failures(engine)
    assert "no progress for 0.025 minutes, which is the limit stall_minutes" in failed
    assert engine.heartbeat is not None
    assert engine.heartbeat.longest_pause > 1.4


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
    [("stopped", "no answer for 1 s"), ("stalls", r"no progress for 0\.025 minutes"), ("killed", "The actor died")],
)
def test_a_failure_before_the_timed_region_ends_the_run(fault: str, cause: str) -> None:
    """The error comes within the limit, and has the engine's name and the cause."""
    over = threading.Event()
    engines = QuickEngine(), QuickEngine()
    handles = handles_of(*engines)
    engine = ParallelEngine(handles, 16)
    engine.silent_seconds, engine.stall_seconds = 1.0, 1.5
    action = (lambda: over.wait(30) and None) if fault == "stalls" else getattr(handles[1], fault).set
    engines[1].before = at_clip(5, action)
    engine.warm_up(clips(3), clips(3))
    with pytest.raises(EngineError, match=rf"engine 1 on here failed \(\w+: {cause}.*\) before the timed region"):
        engine.single_gpu_rates(clips(9))
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


@pytest.mark.parametrize("batch", [1, 4, 7, 16])
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


def test_the_engines_of_a_gpu_are_timed_together_and_hosts_concurrently() -> None:
    """The GPUs of one host are timed one after the other; with a single GPU no rate is measured."""
    both = threading.Barrier(2, timeout=10)  # broken unless two engines transcribe concurrently
    engine_of(*(QuickEngine(before=once(both.wait)) for _ in range(2)), hosts="ab").single_gpu_rates(clips(40))
    turns: list[str] = []
    engine_of(
        QuickEngine(before=lambda _: turns.append("a")), QuickEngine(before=lambda _: turns.append("b"))
    ).single_gpu_rates(clips(40))
    assert turns == sorted(turns)
    engines = [QuickEngine() for _ in range(4)]
    handles = [InProcessHandle(f"engine {i}", engine, device=str(i % 2)) for i, engine in enumerate(engines)]
    assert ParallelEngine(handles[::2], 16).single_gpu_rates(clips(40)) == []
    rates = ParallelEngine(handles, 16).single_gpu_rates(clips(40))
    assert len(rates) == 2
    assert [len(engine.seen) for engine in engines] == [10] * 4


@pytest.mark.parametrize("changed", ["model.bin", "0.flac"])
def test_another_host_must_have_the_same_files(tmp_path: Path, changed: str) -> None:
    """Sizes are compared; the message has the path and the host."""
    for name in ("model.bin", "0.flac"):
        (tmp_path / name).write_bytes(b"some bytes")

    class Elsewhere(InProcessHandle):
        def run(self, function: Callable[..., object], *arguments: object) -> object:  # type: ignore[override]
            (tmp_path / changed).write_bytes(b"other")
            return super().run(function, *arguments)

    engine = ParallelEngine([Elsewhere("engine 0", QuickEngine(), "far")], 16, checkpoint=tmp_path)
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
    handles[1].killed.set()
    ParallelEngine(handles, 4, on_close=closed.set).close()
    assert engines[0].closed
    assert closed.is_set()


def test_a_worker_uses_the_gpu_that_ray_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gets that GPU, and one of another type is refused, because the run records one type."""
    given = []

    def start(_settings: object, hardware: Hardware, _log: Path) -> QuickEngine:
        given.append(hardware)
        return QuickEngine()

    chosen = one_gpu("NVIDIA A10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(worker_module, "detect_hardware", {"3": chosen}.__getitem__)
    worker = EngineWorker(Placement("engine 0", one_gpu("NVIDIA A10", 1), gpu_share=1.0))
    info = worker.start(start, ENGINE_SETTINGS, Path())
    worker.close()
    assert (given, info.device) == ([chosen], chosen.devices[0].uuid)
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


def test_a_queue_of_clips_waits_until_it_is_closed() -> None:
    """`would_wait` is true while `next` would block; `next` returns utterances of another thread."""
    queue = queue_of(closed=False)
    assert queue.would_wait()
    threading.Timer(0.05, lambda: queue.put(clips(2))).start()
    assert next(queue).utt_id == "0"
    assert not queue.would_wait()
    queue.close()
    assert [clip.utt_id for clip in queue] == ["1"]
    assert not list(queue)
