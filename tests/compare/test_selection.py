"""Which runs a comparison was asked for."""

from __future__ import annotations

import pytest

from tests.support.stores import run_of
from whisperbench.compare.selection import selects
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.options.compare import CompareConfig

LARGE = BenchmarkConfig(model="large-v3")


class TestSelection:
    @pytest.mark.parametrize(
        ("options", "selected"),
        [
            ({"gpu": "H100"}, True),
            ({"gpu": "*h100*"}, True),
            ({"gpu": "H100*"}, False),
            ({"gpu": "A10"}, False),
            ({"model": "large-v3"}, True),
            ({"model": "openai/whisper-large-v3"}, True),
            ({"model": "large-v3-*"}, False),
            ({"model": "*turbo*"}, False),
        ],
    )
    def test_globs(self, options: dict[str, str], selected: bool) -> None:
        """A GPU by any part of its name, a model by its whole name, or a pattern."""
        assert selects(CompareConfig(**options), run_of(LARGE)) is selected  # type: ignore[arg-type]
