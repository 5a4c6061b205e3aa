"""Stands in until the compare branch is merged."""

from __future__ import annotations

import contextlib
import io
from typing import Any


def leaderboard(client: Any, records: Any, options: Any, links: Any, searched: str, listener: Any) -> dict[str, str]:  # noqa: ARG001
    from flows import compare

    with contextlib.redirect_stdout(io.StringIO()):
        return compare.leaderboard(client, records, options, links, searched)
