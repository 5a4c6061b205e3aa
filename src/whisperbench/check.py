"""A finding of the doctor, made beside what is looked at: in the package that knows it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One finding; `status` is ok, warning or problem, `remedy` says what to do about the last two.

    `name`, what was looked at, is given by who asks.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


def ok(found: str) -> Check:
    return Check("", "ok", found)


def warning(found: str, remedy: str) -> Check:
    return Check("", "warning", found, remedy)


def problem(found: str, remedy: str) -> Check:
    return Check("", "problem", found, remedy)
