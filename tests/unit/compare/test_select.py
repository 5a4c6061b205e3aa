"""Selection of runs, and their cost at given prices."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.stores import H100, run_of
from whisperbench.compare.select import COST, priced, selects, unused_prices
from whisperbench.compare.systems import System
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import CompareConfig
from whisperbench.errors import ConfigError

A100 = "NVIDIA A100-SXM4-80GB"
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


class TestPriced:
    def test_dollars_per_hour_over_rtfx(self) -> None:
        """2 USD per hour at RTFx 200 are one cent per hour of audio; the recorded cost is replaced."""
        run = run_of(metrics={"rtfx": 200.0, COST: 99.0})
        assert priced(run, {H100: 2.0}).metric(COST) == pytest.approx(0.01)

    def test_every_gpu_is_paid_for(self) -> None:
        """Four GPUs cost four times as much."""
        run = run_of(metrics={"rtfx": 200.0}, params={"gpu_count": "4"})
        assert priced(run, {H100: 2.0}).metric(COST) == pytest.approx(0.04)

    @pytest.mark.parametrize("count", ["0", "many", "", "9" * 5000, "-4"])
    def test_a_cpu_or_a_damaged_number_counts_as_one(self, count: str) -> None:
        """A CPU has no GPUs; other clients can write any param."""
        run = run_of(metrics={"rtfx": 200.0}, params={"gpu_count": count, "engines": count})
        assert priced(run, {H100: 2.0}).metric(COST) == pytest.approx(0.01)
        assert System((run,)).gpu_count == System((run,)).engines == 1

    def test_each_repeat_has_its_cost(self) -> None:
        """The spread of the cost is therefore that of the rate."""
        run = dataclasses.replace(run_of(metrics={"rtfx": 200.0}), history={"rtfx": (100.0, 200.0, 400.0)})
        assert System((priced(run, {H100: 2.0}),)).by_run(COST) == [(0.02, 0.01, 0.005)]

    @pytest.mark.parametrize(
        ("prices", "usd"),
        [
            ({"H100": 2.0}, 0.01),
            ({"h100": 2.0}, 0.01),
            ({"H100": 2.0, H100: 4.0}, 0.02),
            ({"H10": 2.0}, None),
            ({A100: 2.0}, None),
        ],
    )
    def test_whole_words_of_a_name_do(self, prices: dict[str, float], usd: float | None) -> None:
        """H100 matches this GPU, H10 does not; the full name has priority."""
        assert priced(run_of(metrics={"rtfx": 200.0}), prices).metric(COST) == usd

    def test_an_unused_price_is_reported(self) -> None:
        """A10 is not A100."""
        assert unused_prices({"H100": 1.0, "A10": 1.0}, [run_of(), run_of(gpu=A100)]) == ["A10"]


class TestOption:
    def test_names_and_prices(self) -> None:
        """Prices are separated by commas; blanks are ignored."""
        config = CompareConfig(prices=f"{H100}=2.10, A10=0.6")
        assert config.price_of == {H100: 2.1, "A10": 0.6}
        assert CompareConfig().price_of == {}

    @pytest.mark.parametrize("prices", ["2.10", "H100:2.10", "H100=", "H100=x", "H100=-1", "H100=inf", "=2", "H100=2,"])
    def test_what_is_no_price(self, prices: str) -> None:
        """The message for a wrong price explains the format."""
        with pytest.raises(ConfigError, match=r"prices=.* expected none, or GPU=USD per GPU hour.*H100=2.10,A10=0.60"):
            CompareConfig(prices=prices)
