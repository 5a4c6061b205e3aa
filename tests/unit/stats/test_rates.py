"""Test of rates: its level in simulations, also with outliers and unequal noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from whisperbench.stats.rates import Rates, SpeedNoise, farthest_from_best, middles_and_noise, simulate

Floats = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, int]], Floats]


def known(*systems: Rates, others: tuple[Rates, ...] = ()) -> SpeedNoise:
    noise = SpeedNoise.of(systems, others)
    assert noise is not None
    return noise


def share_called_worse(repeats: list[int], noise: Noise, boards: int, slower: float = 0) -> tuple[float, float]:
    """Of simulated boards of systems with these numbers of repeats, the share where anything is called slower than
    the fastest, and the share where the first system is, which is `slower` (a share) than the equal others.
    """
    generator = np.random.default_rng(21)
    samples = [noise(generator, (boards, n)) for n in repeats]
    samples[0] = samples[0] + np.log(1 - slower)
    middles, scatter = middles_and_noise(samples)
    simulated = simulate(tuple(repeats), len(repeats))
    limit, errors = np.quantile(simulated.farthest, 0.95), scatter * simulated.errors
    best = middles.argmax(axis=1)
    rows = np.arange(boards)
    first = (middles[rows, best] - middles[:, 0]) / np.hypot(errors[:, 0], errors[rows, best])
    return float(np.mean(farthest_from_best(middles, errors) > limit)), float(np.mean(first > limit))


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return 0.02 * generator.standard_normal(shape)


def heavy_tailed(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return 0.02 * generator.standard_t(4, shape)


def with_wrong_repeats(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """3 % of repeats take up to twice as long."""
    wrong = generator.random(shape) < 0.03
    return normal(generator, shape) - wrong * generator.uniform(0, np.log(2), shape)


@pytest.mark.parametrize("noise", [normal, heavy_tailed])
@pytest.mark.parametrize("systems", [2, 3, 4, 8, 16, 32])
def test_a_board_of_equal_systems_is_level(systems: int, noise: Noise) -> None:
    """Of boards of equally fast systems, three repeats each, at most 6 % call anything slower than the fastest."""
    assert share_called_worse([3] * systems, noise, 80_000 // systems)[0] <= 0.06


@pytest.mark.parametrize(
    "repeats", [[3, 1, 1, 1, 1, 1], [2, 1], [5, 2, 1, 3], [20, 1], [2, 2, 2], [1] * 30 + [3, 3], [10] * 8]
)
def test_uneven_repeats_are_level_too(repeats: list[int]) -> None:
    """Single runs beside repeats, and many against one."""
    assert share_called_worse(repeats, normal, 5_000)[0] <= 0.06


@pytest.mark.parametrize("repeats", [[3] * 4, [5] * 8, [5] * 2])
def test_wrong_repeats_make_no_differences(repeats: list[int]) -> None:
    """Where every system is repeated, a repeat that went wrong is outvoted."""
    assert share_called_worse(repeats, with_wrong_repeats, 5_000)[0] <= 0.06


@pytest.mark.parametrize(("repeats", "least"), [([3] * 2, 0.9), ([3] * 8, 0.9), ([1, 3, 3, 3], 0.6), ([1, 10], 0.9)])
def test_a_slower_system_is_found(repeats: list[int], least: float) -> None:
    """10 % slower, with 2 % of noise."""
    assert share_called_worse(repeats, normal, 2_000, slower=0.1)[1] >= least


def test_measured_systems_are_judged_as_simulated_ones() -> None:
    """Through lists of rates: 3 to 7 % of 300 pairs of equal systems differ."""
    generator, different = np.random.default_rng(22), 0
    for _ in range(300):
        a, b = ([list(100 * np.exp(normal(generator, (1, 3))[0]))] for _ in range(2))
        different += known(a, b).test(0, 1).significant
    assert 0.03 <= different / 300 <= 0.07


def test_one_bad_repeat_moves_little() -> None:
    """A repeat at 40 % of the others: the change and its limits are almost those without it."""
    usual, slow = [100.0, 99.0, 101.0, 100.5, 99.5], [[90.0, 91.0, 89.0]]
    for other in ([usual], [[*usual[:4], 40.0]]):
        test = known(slow, other).test(0, 1)
        assert test.change == pytest.approx(-10, abs=0.6)
        assert test.significant
        assert -16 < test.low < test.high < -4


def test_nothing_was_measured_twice() -> None:
    """The noise of one system or of two is unknown; the repeats of another one reveal it."""
    one, two = [[40.0]], [[50.0]]
    assert SpeedNoise.of([one]) is None
    assert SpeedNoise.of([one, two]) is None
    assert SpeedNoise.of([], [[[1.0, 2.0]]]) is None
    assert known(one, two, others=([[30.0, 30.1, 29.9]],)).test(0, 1).significant


def test_what_is_not_above_zero_is_not_a_measurement() -> None:
    """Such values are left out, and so are other systems without any rate."""
    noise = known([[40.0, 0.0, 40.4, 39.6]], [[50.0]], others=([[]], [[0.0]]))
    assert noise.middles == pytest.approx(np.log([40.0, 50.0]))


def test_a_single_run_has_an_interval_too() -> None:
    """Its width comes from the repeats of the others, and it is wider than theirs."""
    noise = known([[40.0, 40.4, 39.6]], [[50.0]])
    narrow, wide = noise.interval(0), noise.interval(1)
    assert narrow.low < 40 < narrow.high
    assert wide.low < 50 < wide.high
    assert wide.high / wide.low > narrow.high / narrow.low


def test_intervals_cover() -> None:
    """93 to 97 % of the intervals of three repeats hold the true rate."""
    generator, covered = np.random.default_rng(23), 0
    for _ in range(500):
        systems = [[list(100 * np.exp(0.02 * generator.standard_normal(3)))] for _ in range(2)]
        interval = known(*systems).interval(0)
        covered += interval.low <= 100 <= interval.high
    assert 0.93 <= covered / 500 <= 0.97


def test_equal_repeats_leave_an_interval() -> None:
    """Two equal repeats do not prove that a rate is exact: the limits stay apart."""
    noise = known([[40.0, 40.0]], [[41.0, 41.0]])
    assert noise.interval(0).low < 40 < noise.interval(0).high
    assert noise.test(0, 1).significant


def test_runs_count_if_they_are_enough() -> None:
    """Repeats of one run agree and runs do not: beside several runs of a system, two single runs do not differ."""
    reruns = [[level, level * 1.001, level * 0.999] for level in (95.0, 100.0, 105.0, 98.0, 102.0)]
    a, b = ([[level, level * 1.001, level * 0.999]] for level in (97.0, 101.0))
    assert known(a, b).test(0, 1).significant
    assert not known(a, b, others=(reruns,)).test(0, 1).significant


def test_a_noisy_system_has_its_own_noise() -> None:
    """Its own repeats count, even if the other systems have less noise."""
    assert not known([[97.0, 90.0, 104.0]], *([[100.0, 100.1, 99.9]] for _ in range(6))).test(0, 1).significant


def test_limits_stay_finite() -> None:
    """Two repeats far apart are the only estimate of the noise."""
    test = known([[40.0]], [[50.0]], others=([[10.0, 60.0]],)).test(0, 1)
    assert not test.significant
    assert -100 < test.low < -99 < 10_000 < test.high < 100_000
