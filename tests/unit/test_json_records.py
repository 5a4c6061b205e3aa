"""Files that may have travelled: a wrong value is named, with what it should be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from whisperbench.files import read_json


@dataclasses.dataclass(frozen=True, slots=True)
class Inner:
    """A record inside another."""

    numbers: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Outer:
    """What a file holds."""

    name: str
    inner: Inner


def written(name: Any = "a", number: Any = 1.5) -> bytes:
    return json.dumps({"name": name, "inner": {"numbers": {"wer": number}}}).encode()


def test_a_record_is_read() -> None:
    """With the records inside it; a whole number is a number too."""
    assert read_json(Outer, written(number=2)) == Outer("a", Inner({"wer": 2.0}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (written(name=1), r"^name: Input should be a valid string$"),
        (written(number="1.5"), r"^inner\.numbers\.wer: Input should be a valid number$"),
        (written(number=True), r"^inner\.numbers\.wer: Input should be a valid number$"),
        (written(number=float("inf")), r"^inner\.numbers\.wer: Input should be a finite number$"),
        (written(name="\ud800"), r"^Invalid JSON: "),
        (b'{"name": "a"}', r"^inner: Field required$"),
        (b"\xff", r"^Invalid JSON: "),
        (b"[" * 100_000, r"^Invalid JSON: recursion limit"),
    ],
)
def test_a_wrong_value_is_named(content: bytes, says: str) -> None:
    """Where it is and what it should be, also inside; nothing is converted."""
    with pytest.raises(ValueError, match=says):
        read_json(Outer, content)
