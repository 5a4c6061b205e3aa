"""A fleet without Ray: every clip exactly once, whatever is lost, and what a pass says of itself."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fleets import BatchEngine, LocalMember, QuickEngine, ReadAheadEngine, clips, queue_of
from whisperbench.engines.fleet import Fleet
from whisperbench.engines.fleet_dispatch import MOST, Dispatch
from whisperbench.engines.fleet_member import GATHER_SECONDS, FleetMember, Place
from whisperbench.engines.pulse import Pulse
from whisperbench.engines.seam import Clip, SharedPass, Text
from whisperbench.errors import AudioError, EngineError
from whisperbench.inputs.audio import AudioSource
from whisperbench.measure.clock import measure

ROUNDS, UTTERANCES = 40, 175  # together 7,000 utterances


def fleet_of(*engines: QuickEngine, window: int = 16, hosts: str = "") -> tuple[Fleet, list[LocalMember]]:
    members = [LocalMember(f"engine {i}", engine, hosts[i] if hosts else "here") for i, engine in enumerate(engines)]
    return Fleet(members, window), members


def texts_of(fleet: Fleet, count: int) -> list[Text]:
    return list(fleet.transcribe(clips(count)))


def once_each(texts: list[Text], count: int) -> bool:
    """Whether every clip has one text, its own."""
    right = all(text.text == f"clip {text.index}" for text in texts)
    return right and Counter(text.index for text in texts) == Counter(range(count))


def dies_at(number: int, what: Callable[[], None]) -> Callable[[Clip], None]:
    """Calls `what` when an engine begins its clip of that number."""
    begun = iter(range(10**9))

    def look(_clip: Clip) -> None:
        if next(begun) == number:
            what()

    return look


@given(count=st.integers(0, 200), engines=st.integers(1, 9), window=st.integers(1, 64), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_dispatch_gives_every_clip_once(count: int, engines: int, window: int, seed: int) -> None:
    """Whoever answers, in whatever order, and whoever is lost while another is left."""
    chance = random.Random(seed)  # noqa: S311 - a test's order, not a secret
    dispatch = Dispatch(clips(count), list(range(engines)), window)
    held: dict[int, list[int]] = {engine: [] for engine in range(engines)}
    taken: list[int] = []
    while dispatch.unanswered:
        for handed in dispatch.hand_out():
            held[handed.engine] += [clip.index for clip in handed.clips]
            assert len(held[handed.engine]) <= max(window, 4)
        if len(dispatch.engines) > 1 and chance.random() < 0.1:
            lost = chance.choice(dispatch.engines)
            dispatch.lost(lost)
            assert not any(dispatch.answered(lost, index) for index in held[lost])
            continue
        engine = chance.choice([e for e in dispatch.engines if dispatch.holds(e)] or dispatch.engines)
        if held[engine]:
            index = held[engine].pop(chance.randrange(len(held[engine])))
            if dispatch.answered(engine, index):
                taken.append(index)
                assert not dispatch.answered(engine, index)
    assert sorted(taken) == list(range(count))


def test_the_one_that_holds_least_is_given_the_next(tmp_path: Path) -> None:
    """In small chunks: filling one engine after the other would starve the last ones."""
    dispatch = Dispatch(clips(100, tmp_path), ["a", "b"], window=20)
    first = [(handed.engine, len(handed.clips)) for handed in dispatch.hand_out()]
    assert first == [("a", 4), ("b", 4)] * 5
    assert dispatch.hand_out() == []


def test_at_the_end_an_engine_need_not_wait_for_more() -> None:
    """When nothing is left to hand out, each is told so once; also when lost clips come back later."""
    dispatch = Dispatch(clips(6), ["a", "b"], window=20)
    assert [handed.more for handed in dispatch.hand_out()] == [True, True, True, False, False]
    assert dispatch.hand_out() == []
    dispatch.lost("a")
    assert [(len(handed.clips), handed.more) for handed in dispatch.hand_out()] == [(3, True), (0, False)]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_faults_lose_nothing_and_repeat_nothing(seed: int) -> None:
    """Engines are killed, fail or freeze at random moments, one is left: 40 rounds of 175 utterances."""
    chance = random.Random(seed)  # noqa: S311 - a test's order, not a secret
    faults: dict[int, str] = {
        i: chance.choice(["killed", "fails", "frozen"]) for i in range(chance.randint(2, 4)) if chance.random() < 0.7
    }
    faults.pop(0, None)
    members: list[LocalMember] = []

    def fault(engine: int, kind: str) -> None:
        if kind == "fails":
            raise EngineError("The engine died while it worked")
        getattr(members[engine], kind).set()

    engines = [QuickEngine(chance.choice([0.0, 0.0005])) for _ in range(max(faults, default=1) + 1)]
    for i, kind in faults.items():
        engines[i].fails = dies_at(chance.randrange(60), lambda i=i, kind=kind: fault(i, kind))
    fleet, made = fleet_of(*engines)
    members += made
    fleet.signs.silent_seconds = 1.0
    assert once_each(texts_of(fleet, UTTERANCES), UTTERANCES)
    assert fleet.last_pass is not None
    assert len(fleet.last_pass.lost) <= len(faults)
    if fleet.last_pass.lost:
        assert fleet.last_pass.energy_wh is None


def test_a_pass_that_lost_an_engine_says_which_and_why() -> None:
    """By name and host; the passes after it too."""
    fleet, _ = fleet_of(QuickEngine(0.001), QuickEngine(0.001, dies_at(3, _fail)))
    assert once_each(texts_of(fleet, 50), 50)
    assert fleet.last_pass is not None
    assert fleet.last_pass.lost == ("engine 1 on here was lost (EngineError: out of memory)",)
    assert once_each(texts_of(fleet, 50), 50)
    assert len(fleet.last_pass.lost) == 1


def test_a_frozen_engine_is_given_up_soon() -> None:
    """After the fleet's own limit, not Ray's; what it held is transcribed by the other."""
    fleet, members = fleet_of(QuickEngine(), QuickEngine(0.001))
    members[1].frozen.set()
    fleet.signs.silent_seconds = 1.0
    started = time.perf_counter()
    assert once_each(texts_of(fleet, 60), 60)
    assert time.perf_counter() - started < 6
    assert fleet.last_pass is not None
    assert "no sign of life" in fleet.last_pass.lost[0]


def test_an_engine_that_only_takes_long_is_not_given_up() -> None:
    """A member answers while its engine thinks: with nothing, and in time."""
    fleet, _ = fleet_of(QuickEngine(2.0))
    fleet.signs.silent_seconds = 1.0
    assert once_each(texts_of(fleet, 1), 1)


def test_an_engine_whose_work_stops_is_given_up() -> None:
    """Its process answers, and its work makes no progress: a frozen engine process, or a GPU that hangs."""
    hangs, over = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        over.wait(30)

    fleet, _ = fleet_of(QuickEngine(0.05), QuickEngine(0, dies_at(4, hang)))
    fleet.signs.stall_seconds = 1.5
    assert once_each(texts_of(fleet, 60), 60)
    over.set()
    assert hangs.is_set()
    assert fleet.last_pass is not None
    assert len(fleet.last_pass.lost) == 1
    assert "no progress for 0.025 minutes, which is stall_minutes" in fleet.last_pass.lost[0]
    assert fleet.pulse is not None
    assert fleet.pulse.longest_pause > 1.4


def test_an_engine_that_has_nothing_to_do_is_not_given_up() -> None:
    """Nor one that works long between two texts and says that it gets on."""
    slow = QuickEngine(2.5)
    beating = slow.pulse = Pulse()
    fleet, _ = fleet_of(slow, QuickEngine(), window=2)
    fleet.signs.stall_seconds = 1.0
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.1):
            beating.beat()

    threading.Thread(target=beat, daemon=True).start()
    assert once_each(texts_of(fleet, 5), 5)
    over.set()


@pytest.mark.parametrize("how", ["frozen", "hangs", "killed"])
def test_before_the_clock_an_engine_that_stops_is_the_end(how: str) -> None:
    """Within the limit, with its name and the cause: in its warm-up, and in its pass alone."""
    over = threading.Event()
    engines = QuickEngine(), QuickEngine()
    fleet, members = fleet_of(*engines)
    fleet.signs.silent_seconds, fleet.signs.stall_seconds = 1.0, 1.5

    def stop() -> None:
        if how == "hangs":
            over.wait(30)
        else:
            getattr(members[1], how).set()

    engines[1].fails = dies_at(5, stop)
    fleet.warm_up(clips(3), clips(3))
    cause = {
        "frozen": "no sign of life for 1 s",
        "hangs": r"no progress for 0\.025 minutes",
        "killed": "The actor died",
    }[how]
    started = time.perf_counter()
    with pytest.raises(EngineError, match=f"lost before the clock started: .*{cause}"):
        fleet.alone_rates(clips(9))
    assert time.perf_counter() - started < 6
    over.set()


def test_all_engines_gone_is_the_end() -> None:
    """With the number of clips that are left, and what became of each engine."""
    fleet, _ = fleet_of(QuickEngine(0, dies_at(3, _fail)), QuickEngine(0, dies_at(3, _fail)))
    said = r"All engines are gone, \d+ clips are left\. engine (\d) on here.*; engine (?!\1)\d on"
    with pytest.raises(EngineError, match=said):
        texts_of(fleet, 100)


def test_a_broken_file_ends_the_pass_and_no_engine() -> None:
    """It would break every engine in turn: the file's name is what a person needs."""

    def broken(clip: Clip) -> None:
        if clip.index == 7:
            raise AudioError("7.flac cannot be decoded")

    fleet, _ = fleet_of(QuickEngine(0, broken), QuickEngine(0, broken))
    with pytest.raises(AudioError, match=r"7\.flac"):
        texts_of(fleet, 100)


def test_engines_that_take_batches_are_not_starved() -> None:
    """One that waits for a full batch gets the rest of its clips when no more follow."""
    fleet, _ = fleet_of(BatchEngine(8), BatchEngine(8), window=16)
    assert once_each(texts_of(fleet, 101), 101)
    assert once_each(texts_of(fleet, 5), 5)


@pytest.mark.parametrize("batch", [1, 4, 7, 16])
def test_engines_that_read_ahead_are_not_starved(batch: int) -> None:
    """The window holds what they wait for and the next chunk: else both sides would wait for ever."""
    fleet, _ = fleet_of(ReadAheadEngine(batch), ReadAheadEngine(batch), window=3 * batch + MOST)
    assert once_each(texts_of(fleet, 151), 151)


def test_passes_do_not_mix() -> None:
    """Answers that a pass no longer waits for belong to it, not to the next."""
    fleet, _ = fleet_of(QuickEngine(0.002), QuickEngine())
    for _ in range(5):
        assert once_each(texts_of(fleet, 20), 20)


def test_a_slow_engine_gets_less() -> None:
    """And the pass tells its share of the median's audio."""
    fleet, _ = fleet_of(QuickEngine(0.002), QuickEngine(0.002), QuickEngine(0.02), window=4)
    texts_of(fleet, 200)
    assert fleet.last_pass is not None
    assert fleet.last_pass.slowest_engine_share < 60


def test_the_clock_measures_scaling_rounds_and_what_was_lost(tmp_path: Path) -> None:
    """Each engine is warmed and timed alone; rounds are inside the clock and scored once."""
    from tests.support.fakes import NO_GPU
    from whisperbench.inputs.corpus import Utterance

    engines = QuickEngine(0.001), QuickEngine(0.001)
    fleet, _ = fleet_of(*engines)
    utterances = [Utterance(f"u{i}", tmp_path / f"{i}.flac", "a", None) for i in range(40)]
    heard: list[str] = []
    found = measure(
        fleet,
        utterances,
        repeats=2,
        warmup=3,
        hardware=NO_GPU,
        on_result=[lambda _repeat, transcript: heard.append(transcript.utt_id)],
        rounds=3,
    )
    assert all(engine.seen[:3] == [0, 1, 2] for engine in engines)
    assert len(found.alone_rates) == 2
    assert [each.utterances for each in found.passes] == [120, 120]
    assert [t.utt_id for t in found.median.first_round] == [u.id for u in utterances]
    assert Counter(heard) == Counter({u.id: 6 for u in utterances})
    assert found.median.shared is not None
    assert not found.median.lost


def test_engines_of_other_hosts_work_alone_at_the_same_time() -> None:
    """What they do does not disturb each other; those of one host take turns."""
    apart, _ = fleet_of(QuickEngine(0.005), QuickEngine(0.005), hosts="ab")
    together, _ = fleet_of(QuickEngine(0.005), QuickEngine(0.005))
    seconds = []
    for fleet in (apart, together):
        started = time.perf_counter()
        fleet.alone_rates(clips(40))
        seconds.append(time.perf_counter() - started)
    assert seconds[1] > 1.5 * seconds[0]


def test_engines_that_share_a_gpu_are_measured_together() -> None:
    """A GPU alone is all of its engines; the only GPU alone would be the pass itself."""
    engines = [QuickEngine(0.005) for _ in range(4)]
    shared = [LocalMember(f"engine {i}", engine, device=str(i % 2)) for i, engine in enumerate(engines)]
    one, two = Fleet(shared[::2], 16).alone_rates(clips(40)), Fleet(shared, 16).alone_rates(clips(40))
    assert one == []
    assert len(two) == 2
    assert all(rate > 1.5 / 0.005 for rate in two)  # an engine takes 5 ms a clip, and each of two has its own


@pytest.mark.parametrize("what", ["checkpoint", "corpus"])
def test_other_hosts_must_have_the_same_files(tmp_path: Path, what: str) -> None:
    """Before the clock, by name: what files hold counts, not where they lie."""
    changed = {"checkpoint": b"weights", "corpus": b"audio"}[what]

    class Elsewhere(LocalMember):
        """Has the same files under other names, of which one holds something else."""

        def digest(self, paths: Sequence[Path], clips: Sequence[AudioSource]) -> Future[str]:
            there = tmp_path / "there"
            there.mkdir(exist_ok=True)
            moved = []
            for source in (*paths, *clips):
                assert isinstance(source, Path)
                moved.append(there / f"moved-{source.name}")
                held = source.read_bytes()
                moved[-1].write_bytes(b"another" if held == changed else held)
            return super().digest(moved, [])

    (tmp_path / "0.flac").write_bytes(b"audio")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.bin").write_bytes(b"weights")
    members = [LocalMember("engine 0", QuickEngine()), Elsewhere("engine 1", QuickEngine(), "far")]
    fleet = Fleet(members, 16, checkpoint=weights)
    with pytest.raises(EngineError, match=rf"far has another {what} than .* \(\w+, here"):
        fleet.warm_up([], clips(1, tmp_path))


@pytest.mark.parametrize(
    ("audio", "ended", "share", "tail"),
    [((10.0, 10.0, 8.0), (5.0, 5.2, 4.9), 80.0, 0.3), ((7.0,), (3.0,), 100.0, 0.0), ((), (), 100.0, 0.0)],
)
def test_shares_and_tails(audio: tuple[float, ...], ended: tuple[float, ...], share: float, tail: float) -> None:
    """The slowest against the median engine, and the time in which somebody had nothing to do."""
    found = SharedPass(audio, ended, 0.0, None)
    assert found.slowest_engine_share == pytest.approx(share)
    assert found.tail_seconds == pytest.approx(tail)


def test_closing_ends_every_engine_once() -> None:
    """Also those that do not answer; then whoever lent the place is told."""
    told: list[str] = []
    engines = QuickEngine(), QuickEngine()
    members = [LocalMember(f"engine {i}", engine) for i, engine in enumerate(engines)]
    fleet = Fleet(members, 4, ended=lambda: told.append("ended"))
    members[1].killed.set()
    fleet.close()
    assert engines[0].closed
    assert told == ["ended"]


def test_a_queue_says_whether_it_would_wait_and_ends_when_it_is_closed() -> None:
    """A feed asks before it waits; `next` waits for another thread's clip."""
    queue = queue_of(closed=False)
    assert queue.would_wait()
    threading.Timer(0.05, lambda: queue.put(clips(2))).start()
    assert next(queue).index == 0
    assert not queue.would_wait()
    queue.close()
    assert [clip.index for clip in queue] == [1]
    assert not list(queue)


def _fail() -> None:
    raise EngineError("out of memory")


def test_texts_are_handed_out_several_at_once_and_the_last_ones_without_waiting() -> None:
    """Each answer of an actor costs its process and the driver's more than a text does."""
    member = FleetMember(Place("engine 0"))
    member.drive(QuickEngine(0.001))
    member.put(clips(200), more=True)
    answers: list[int] = []
    while sum(answers) < 200:
        answers.append(len(member.take().texts))
    assert len(answers) < 40
    member.put(clips(1), more=True)
    started = time.perf_counter()
    assert len(member.take().texts) == 1
    assert time.perf_counter() - started < GATHER_SECONDS
