"""An engine made of engines: one corpus, one clock, one engine per GPU.

The fleet hands out clips as engines have room and takes their texts as they come.  An engine that is lost, killed or
frozen gives its clips back to the others: every clip has exactly one text, and the pass says that it was cut down.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

from whisperbench.engines.fleet_dispatch import Dispatch
from whisperbench.engines.fleet_member import MemberFacts, Signs, Usage, content_digest
from whisperbench.engines.fleet_signs import LOOK_SECONDS, SignsOfLife
from whisperbench.engines.pulse import Pulse
from whisperbench.engines.seam import Clip, Engine, EngineFacts, SharedPass, Text
from whisperbench.errors import EngineError, WhisperbenchError
from whisperbench.inputs.audio import AudioSource

T = TypeVar("T")

CLOSE_SECONDS = 10.0
ALONE_FILLS = 10
"""Times that the clips of an engine's pass alone fill its window, at most: its start and end hardly count then."""


class Member(Protocol):
    """One engine as the fleet sees it: calls of a `FleetMember`, wherever that is, answered later."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> MemberFacts: ...

    def put(self, clips: Sequence[Clip], more: bool) -> None: ...

    def take(self) -> Future[Signs]: ...

    def seconds_alone(self, clips: Sequence[Clip]) -> Future[float]: ...

    def usage(self) -> Future[Usage]: ...

    def digest(self, paths: Sequence[Path], clips: Sequence[AudioSource]) -> Future[str]: ...

    def close(self) -> Future[None]: ...

    def kill(self) -> None:
        """End its processes, whatever state they are in; it may be gone already."""


class Fleet(Engine):
    """An `Engine` of many.

    Args:
        members: at least one started engine, all with the same settings.
        window: clips that one engine may hold, so that it never waits for the next.
        load_seconds: from the first engine's start to the last one being ready.
        ended: called when all of them are closed.
        stall_seconds: an engine whose work makes no progress for so long is lost (0: never).
    """

    watches_itself = True

    def __init__(
        self,
        members: Sequence[Member],
        window: int,
        load_seconds: float = 0.0,
        ended: Callable[[], None] = lambda: None,
        checkpoint: Path | None = None,
        stall_seconds: float = 0.0,
    ) -> None:
        self._members, self._alive = tuple(members), list(members)
        self._window, self._load_seconds, self._ended, self._checkpoint = window, load_seconds, ended, checkpoint
        self._lost: list[str] = []
        self.pulse = Pulse()  # the longest pause of any engine counts, whatever the others did meanwhile
        self.signs: SignsOfLife[Member] = SignsOfLife(stall_seconds, self.pulse)

    @property
    def facts(self) -> EngineFacts:
        """Those of the first engine, with the number of all of them."""
        return dataclasses.replace(
            self._members[0].facts.engine,
            load_seconds=self._load_seconds,
            engines=len(self._members),
            hosts=len({member.facts.host for member in self._members}),
        )

    def pids(self) -> set[int]:
        """This process, and the engines' processes that run on this host."""
        here = [member.facts for member in self._members if member.facts.host == platform.node()]
        return {os.getpid()}.union(*(facts.processes for facts in here))

    def warm_up(self, first: Iterable[Clip], clips: Sequence[Clip]) -> Iterable[Text]:
        """Every engine transcribes the first clips; other hosts must have the same clips and weights.

        Raises:
            EngineError: an engine ended, or a host has other files.
        """
        self._compare_hosts(clips)
        some = list(first)
        self._all({member: member.seconds_alone(some) for member in self._members})
        return ()

    def alone_rates(self, clips: Sequence[Clip]) -> list[float]:
        """Utterances per second of each GPU, with all engines that share it, while no other GPU of its host works; on
        clips from all over the corpus.  None where there is one GPU: that is the pass itself.

        Raises:
            EngineError: an engine ended.
        """
        by_host: dict[str, dict[str, list[Member]]] = {}
        for member in self._members:
            by_host.setdefault(member.facts.host, {}).setdefault(member.facts.device, []).append(member)
        by_device = [list(devices.values()) for devices in by_host.values()]
        if sum(map(len, by_device)) == 1:
            return []
        count = min(-(-len(clips) // len(self._members)), ALONE_FILLS * self._window)
        some = [clips[i * len(clips) // count] for i in range(count)]
        rates = []
        for turn in range(max(map(len, by_device))):
            now = [devices[turn] for devices in by_device if turn < len(devices)]
            found = self._all({member: member.seconds_alone(some) for members in now for member in members})
            rates += [count * len(members) / max(found[member] for member in members) for members in now]
        return rates

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        """Exactly one text per clip, whichever engines are lost meanwhile; afterwards `last_pass` tells how it went.

        Raises:
            AudioError: a file cannot be decoded.
            EngineError: all engines are lost.
        """
        before, started = self._usages(), time.perf_counter()
        dispatch = Dispatch(clips, self._alive, self._window)
        audio, ended = dict.fromkeys(self._alive, 0.0), dict.fromkeys(self._alive, 0.0)
        while dispatch.unanswered:
            if not self._alive:
                raise EngineError(
                    f"All engines are gone, {dispatch.unanswered} clips are left. {'; '.join(self._lost)}"
                )
            for handed in dispatch.hand_out():
                handed.engine.put(handed.clips, handed.more)
            for member in self._alive:
                self.signs.ask(member)
            for member, answer in self.signs.arrived():
                for text in self._texts(dispatch, member, answer):
                    audio[member] += text.audio_seconds
                    ended[member] = time.perf_counter() - started
                    yield text
            for member, silence in self.signs.given_up([each for each in self._alive if dispatch.holds(each)]):
                self._lose(dispatch, member, silence)
        self.last_pass = self._pass(before, audio, ended)

    def close(self) -> None:
        """Close every engine, at most CLOSE_SECONDS; what does not end is killed."""
        try:
            closing = [(member, member.close()) for member in self._alive]
            deadline = time.monotonic() + CLOSE_SECONDS
            for member, answer in closing:
                try:
                    answer.result(max(0.1, deadline - time.monotonic()))
                except Exception:  # whatever it says, it does not end by itself
                    member.kill()
        finally:
            self._alive = []
            self._ended()

    def _texts(self, dispatch: Dispatch[Member], member: Member, answer: Future[Signs]) -> list[Text]:
        """Those of an answer that nobody has given yet; none, and the engine is lost, where it is an error."""
        try:
            return [text for text in answer.result().texts if dispatch.answered(member, text.index)]
        except Exception as error:
            if isinstance(error, WhisperbenchError) and not isinstance(error, EngineError):
                raise cause_of(error) from error
            self._lose(dispatch, member, error)
            return []

    def _lose(self, dispatch: Dispatch[Member], member: Member, error: Exception) -> None:
        dispatch.lost(member)
        self._lost.append(f"{member.name} on {member.facts.host} was lost ({why(error)})")
        self._kill(member)

    def _kill(self, member: Member) -> None:
        self._alive.remove(member)
        self.signs.forget(member)
        member.kill()

    def _pass(self, before: dict[str, Usage], audio: dict[Member, float], ended: dict[Member, float]) -> SharedPass:
        after = self._usages()
        both = [(before[name], after[name]) for name in after if name in before]
        energy: dict[str, float] = {}
        for first, last in both:
            energy.update({gpu: last.energy_wh[gpu] - first.energy_wh.get(gpu, 0.0) for gpu in last.energy_wh})
        complete = energy and all(last.energy_wh for _, last in both) and not self._lost
        return SharedPass(
            audio_seconds=tuple(audio[member] for member in self._alive),
            ended=tuple(ended[member] for member in self._alive),
            cpu_seconds=sum(last.cpu_seconds - first.cpu_seconds for first, last in both),
            energy_wh=sum(energy.values()) if complete else None,
            lost=tuple(self._lost),
        )

    def _usages(self) -> dict[str, Usage]:
        asked = [(member.name, member.usage()) for member in self._alive]
        found = {}
        for name, answer in asked:
            with contextlib.suppress(Exception):  # who has just died is noticed where texts are taken
                found[name] = answer.result(self.signs.silent_seconds)
        return found

    def _all(self, answers: Mapping[Member, Future[T]]) -> dict[Member, T]:
        """All answers; before the clock an engine that is lost is the end, and so is one that does not get on."""
        waiting = dict(answers)
        try:
            while waiting:
                for member in waiting:
                    self.signs.ask(member)
                futures.wait(waiting.values(), LOOK_SECONDS, futures.FIRST_EXCEPTION)
                for done in [member for member, answer in waiting.items() if answer.done()]:
                    waiting.pop(done).result()
                self._require_signs(waiting)
        except WhisperbenchError as error:
            raise cause_of(error) from error
        except Exception as error:
            raise EngineError(f"An engine was lost before the clock started: {why(error)}.") from error
        return {member: answer.result() for member, answer in answers.items()}

    def _require_signs(self, waiting: Iterable[Member]) -> None:
        for _, answer in self.signs.arrived(wait_seconds=0):
            answer.result()
        for member, silence in self.signs.given_up(waiting):
            self._kill(member)
            raise EngineError(f"{member.name} on {member.facts.host} was lost before the clock started: {silence}.")

    def _compare_hosts(self, clips: Sequence[Clip]) -> None:
        first = {member.facts.host: member for member in reversed(self._members)}
        first.pop(platform.node(), None)
        if not first:
            return
        audio = [clip.audio for clip in clips]
        weights = sorted(self._checkpoint.iterdir()) if self._checkpoint else []
        asked = {
            what: {member: member.digest(*given) for member in first.values()}
            for what, given in (("checkpoint", (weights, [])), ("corpus", ([], audio)))
        }
        here = {"checkpoint": content_digest(weights), "corpus": content_digest((), audio)}
        for what, answers in asked.items():
            for member, found in self._all(answers).items():
                if found != here[what]:
                    raise EngineError(
                        f"{member.facts.host} has another {what} than {platform.node()} ({found}, here {here[what]})."
                    )


def cause_of(error: BaseException) -> BaseException:
    """What a member raised: Ray hands out a copy that has a traceback for a message, and the original in it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def why(error: BaseException) -> str:
    """The kind of an error, and the last line of what an engine or Ray says."""
    error = cause_of(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].rstrip('.')[:300]}" if lines else type(error).__name__
