"""Which process works on something, and when it counts as dead."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperbench.processes.owner import ProcessId


def test_this_process_lives() -> None:
    """And is found again from its text."""
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
    """No such process, or a later one under its number; never one of another host or container."""
    here = ProcessId.this()
    assert here is not None
    assert dataclasses.replace(here, **changed).is_dead(here) is dead


def test_after_a_reboot() -> None:
    """A host's own processes are dead; a container's cannot be told from those of a container of the same name."""
    here = ProcessId("gpu1", "m" * 32, "boot2", "pid:[4026531836]", 7, 100)
    assert dataclasses.replace(here, boot="boot1").is_dead(here)
    inside = dataclasses.replace(here, namespace="pid:[4026532999]")
    assert not dataclasses.replace(inside, boot="boot1").is_dead(inside)


@given(st.text())
def test_any_text_is_a_process_or_none(text: str) -> None:
    """Tags are anybody's to write."""
    ProcessId.parse(text)
    ProcessId.parse(f"host=a|machine=b|boot=c|namespace=d|pid={text}|started=1")
