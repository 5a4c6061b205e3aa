"""Selection of the runs to compare, and their cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.reports import LARGE
from tests.support.stores import H100, run_of
from whisperbench.compare.select import COST, price_warnings, priced, selects
from whisperbench.compare.systems import System
from whisperbench.config.compare import CompareConfig
from whisperbench.results.names import DISTURBED

A100 = "NVIDIA A100-SXM4-80GB"


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
def test_globs(options: Any, selected: bool) -> None:
    """A GPU by any part of its name, a model by its whole name, or a pattern."""
    assert selects(CompareConfig(**options), run_of(LARGE)) is selected


class TestPriced:
    @pytest.mark.parametrize(
        ("count", "usd"), [("1", 0.01), ("4", 0.04), *((text, 0.01) for text in ("0", "many", "", "9" * 5000, "-4"))]
    )
    def test_dollars_per_hour_over_rtfx(self, count: str, usd: float) -> None:
        """2 USD per GPU hour at RTFx 200 replace the recorded cost; a CPU or a damaged number counts as one GPU."""
        run = run_of(metrics={"rtfx": 200.0, COST: 99.0}, params={"gpu_count": count, "engines": count})
        assert priced(run, {H100: 2.0}).metric(COST) == pytest.approx(usd)
        assert System((run,)).gpu_count == System((run,)).engines == round(100 * usd)

    def test_each_repeat_has_its_cost(self) -> None:
        """The spread of the cost is therefore that of the rate."""
        run = dataclasses.replace(run_of(metrics={"rtfx": 200.0}), history={"rtfx": (100.0, 200.0, 400.0)})
        assert System((priced(run, {H100: 2.0}),)).by_run(COST) == [(0.02, 0.01, 0.005)]

    @pytest.mark.parametrize(
        ("prices", "usd"),
        [
            ({"h100": 2.0}, 0.01),
            ({"H100": 2.0, H100: 4.0}, 0.02),
            ({"H10": 2.0}, None),
            ({A100: 2.0}, None),
        ],
    )
    def test_whole_words_of_a_name_do(self, prices: dict[str, float], usd: float | None) -> None:
        """H100 matches this GPU, H10 does not; the full name has priority."""
        assert priced(run_of(metrics={"rtfx": 200.0}), prices).metric(COST) == usd

    def test_a_price_without_effect_is_reported(self) -> None:
        """A10 is not A100, and a run whose speed is not ranked has no cost; then the reason is named."""
        runs = [run_of(), run_of(gpu=A100, tags={DISTURBED: "another benchmark ran"})]
        assert list(price_warnings({"H100": 1.0, "A10": 1.0, "A100": 1.0}, runs)) == [
            f"prices: no run was measured on a GPU 'A10'. The runs were measured on {A100}, {H100}.",
            "prices: no run on a GPU 'A100' has a ranked speed (another benchmark ran), so its cost is not known.",
        ]
