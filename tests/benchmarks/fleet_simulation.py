"""What many GPUs reach together, on paper: the fleet's own way of handing out clips, with engines that are numbers.

    PYTHONPATH=src python -m tests.benchmarks.fleet_simulation            a table in markdown; two minutes on one core

An engine is a GPU that decodes at most `seqs` utterances at once.  It takes new ones in bursts: encoding them costs
`encode` seconds each, during which nothing is decoded; then every sequence writes a token per step.  There is one
driver: an answer of an engine brings all texts that it has, and costs `PER_CALL` seconds and `PER_TEXT` for each; a
chunk costs `PER_CALL` too; both are under way for `TRAVEL` seconds.  What is not in it: readers that have too few
cores, a network between nodes, and clocks of GPUs that throttle.

Measured are what one engine reaches alone (`RATE`, see README.md in this directory) and `PER_TEXT`.  Estimated are
`ENCODE_SHARE`, `PER_CALL` and `TRAVEL`: from 64 GPUs on the result depends on the second of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from tests.benchmarks.corpus import lengths
from whisperbench.engines.fleet_dispatch import Dispatch
from whisperbench.engines.seam import Clip

RATE = 159.0
"""Utterances per second of one H100 with large-v3-turbo over test-clean, as measured."""
SEQS, BURST = 256, 64
WORDS_TO_TOKENS = 1.35
ENCODE_SHARE = 0.9
"""Of an engine's time, spent on encoding: turbo has four decoder layers, and the encoder of large-v3."""
PER_TEXT, PER_CALL, TRAVEL = 0.00004, 0.0004, 0.002
"""The first was measured with fake engines, journal included; the others are estimates from actors of Ray 2.60."""
TOKENS = [max(1, round(words * WORDS_TO_TOKENS)) for _, words in lengths()]
MEAN_TOKENS = sum(TOKENS) / len(TOKENS)


class Engine:
    """One GPU, `speed` times as fast as the measured one."""

    def __init__(self, speed: float = 1.0) -> None:
        self.waiting: deque[int] = deque()
        self.decoding: list[tuple[float, int]] = []  # (tokens written by all when it ends, clip)
        self.written = 0.0
        self.more = True
        self.encode = ENCODE_SHARE / RATE / speed
        # A full engine writes SEQS tokens a step: how long that takes follows from the rate that was measured.
        self.token = (1 - ENCODE_SHARE) / RATE / MEAN_TOKENS * SEQS / speed
        self.busy = False

    def step(self) -> tuple[float, list[int]]:
        """Seconds until something is finished or taken in, and the clips that are finished then."""
        room = SEQS - len(self.decoding)
        if self.waiting and (room >= BURST or not self.more or not self.decoding):
            count = min(room, len(self.waiting), BURST)
            for _ in range(count):
                clip = self.waiting.popleft()
                heapq.heappush(self.decoding, (self.written + TOKENS[clip % len(TOKENS)], clip))
            if count:
                return count * self.encode, []
        if not self.decoding:
            return 0.0, []
        end = self.decoding[0][0]
        seconds, self.written = (end - self.written) * self.token, end
        done = []
        while self.decoding and self.decoding[0][0] <= end:
            done.append(heapq.heappop(self.decoding)[1])
        return seconds, done


def seconds_of(engines: Sequence[Engine], rounds: int, window: int) -> float:
    """How long these engines take for so many rounds over test-clean."""
    clips = [Clip(i, Path()) for i in range(rounds * len(TOKENS))]
    clips.sort(key=lambda clip: -lengths_of(clip.index))
    dispatch = Dispatch(clips, list(range(len(engines))), window)
    order, driver = itertools.count(), 0.0
    events: list[tuple[float, int, int, list[int] | None]] = []  # (when, tie, engine, finished clips; None: an answer)
    outbox: list[list[int]] = [[] for _ in engines]

    def wake(place: int, when: float) -> None:
        engine = engines[place]
        if not engine.busy and (engine.waiting or engine.decoding):
            seconds, done = engine.step()
            engine.busy = True
            heapq.heappush(events, (when + seconds, next(order), place, done))

    def give(when: float) -> float:
        for handed in dispatch.hand_out():
            engines[handed.engine].waiting.extend(clip.index for clip in handed.clips)
            engines[handed.engine].more = handed.more
            when += PER_CALL
            wake(handed.engine, when + TRAVEL)
        return when

    driver = give(0.0)
    while dispatch.unanswered:
        now, _, place, done = heapq.heappop(events)
        if done is None:
            if now < driver:  # it is at work on others: this answer grows meanwhile
                heapq.heappush(events, (driver, next(order), place, None))
                continue
            for clip in outbox[place]:
                dispatch.answered(place, clip)
            driver = give(now + PER_CALL + PER_TEXT * len(outbox[place]))
            outbox[place] = []
            continue
        engines[place].busy = False
        wake(place, now)
        if done and not outbox[place]:
            heapq.heappush(events, (now + TRAVEL, next(order), place, None))
        outbox[place] += done
    return driver


def lengths_of(index: int) -> int:
    return SAMPLES[index % len(SAMPLES)]


SAMPLES = [samples for samples, _ in lengths()]


def rate(gpus: int, rounds: int, *, window: int = SEQS + BURST, slow: float = 1.0) -> float:
    """Utterances per second of so many GPUs, of which one has the speed `slow`."""
    engines = [Engine(slow if i == 0 else 1.0) for i in range(gpus)]
    return rounds * len(TOKENS) / seconds_of(engines, rounds, window)


def efficiency(gpus: int, rounds: int, alone: float, *, window: int = SEQS + BURST, slow: float = 1.0) -> float:
    """Percent of what the same GPUs reach one by one."""
    return 100 * rate(gpus, rounds, window=window, slow=slow) / (alone * (gpus - 1 + slow))


def rows(sizes: Iterable[tuple[int, Sequence[int]]]) -> list[str]:
    alone = rate(1, 2)
    found = [f"One GPU alone: {alone:.0f} utterances/s (measured {RATE:.0f}).", ""]
    found += ["| GPUs | rounds | efficiency % | one at 80 % speed | half the window | utterances/s |", f"|{'--:|' * 6}"]
    for gpus, all_rounds in sizes:
        for rounds in all_rounds:
            plain = efficiency(gpus, rounds, alone)
            slow = efficiency(gpus, rounds, alone, slow=0.8)
            small = efficiency(gpus, rounds, alone, window=SEQS // 2)
            found.append(
                f"| {gpus} | {rounds} | {plain:.1f} | {slow:.1f} | {small:.1f} | {plain * alone * gpus / 100:,.0f} |"
            )
    return found


@click.command(help=__doc__)
@click.option("--most", default=512, show_default=True, help="GPUs.")
def main(most: int) -> None:
    sizes = ((8, (1, 2, 4, 8)), (64, (8, 16, 32)), (512, (64, 128)))
    click.echo("\n".join(rows((gpus, rounds) for gpus, rounds in sizes if gpus <= most)))


if __name__ == "__main__":
    main()
