"""What leaderboards are ranked by, and what a search looks for."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Sorting:
    """A metric that runs are ranked by, its name in a heading, and what the first one is where a test says so."""

    metric: str
    heading: str
    first: str
    higher_is_better: bool = False

    @property
    def extreme(self) -> str:
        """`highest reqs/sec`, `lowest WER`: what a figure is that nothing was tested of."""
        return f"{'highest' if self.higher_is_better else 'lowest'} {self.heading}"


SORTINGS = {
    "wer": Sorting("wer", "WER", "Most accurate"),
    "reqs_per_sec": Sorting("reqs_per_sec", "reqs/sec", "Fastest", higher_is_better=True),
    "rtfx": Sorting("rtfx", "RTFx", "Fastest", higher_is_better=True),
    "energy": Sorting("energy_wh_per_audio_hour", "energy per audio hour", "Most frugal"),
    "cost": Sorting("usd_per_audio_hour", "cost per audio hour", "Cheapest"),
}
"""What leaderboards are ranked by, and a search looks for."""

SORTS = tuple(SORTINGS)
