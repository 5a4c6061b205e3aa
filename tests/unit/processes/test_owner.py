"""Identity of the process that owns a run, and when it counts as dead."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperbench.processes.owner import ProcessId


def test_this_process_lives() -> None:
    """Its identity is equal to the one parsed from its text."""
    here = ProcessId.this()
    assert here is not None
    assert ProcessId.parse(str(here)) == here
    assert not here.is_dead(here)


GONE = 4194399


@pytest.mark.parametrize(
    ("changed", "dead"),
    [
        ({"pid": GONE}, True),
        ({"started": 1}, True),
        ({"pid": GONE, "host": "elsewhere"}, False),
        ({"pid": GONE, "machine": "0" * 32}, False),
        ({"pid": GONE, "namespace": "pid:[1]"}, False),
    ],
)
def test_dead_only_where_it_is_certain(changed: dict[str, Any], dead: bool) -> None:
    """It is dead if the id is unused or reused; processes of other hosts and containers never count as dead."""
    here = ProcessId.this()
    assert here is not None
    assert dataclasses.replace(here, **changed).is_dead(here) is dead


def test_after_a_reboot() -> None:
    """Processes of the host itself are dead; those of a container may belong to another one of that name."""
    here = ProcessId("gpu1", "m" * 32, "boot2", "pid:[4026531836]", 7, 100)
    assert dataclasses.replace(here, boot="boot1").is_dead(here)
    inside = dataclasses.replace(here, namespace="pid:[4026532999]")
    assert not dataclasses.replace(inside, boot="boot1").is_dead(inside)


@given(st.text())
def test_any_text_is_a_process_or_none(text: str) -> None:
    """Tags can have any value, because every user can edit them."""
    ProcessId.parse(text)
    ProcessId.parse(f"host=a|machine=b|boot=c|namespace=d|pid={text}|started=1")
