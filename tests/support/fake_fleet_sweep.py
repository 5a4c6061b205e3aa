"""The sweep command over a benchmark with fake engines, which run on Ray where they are asked to.

`python -m tests.support.fake_fleet_sweep --models …`
"""

from __future__ import annotations

import sys
from typing import Any

import click

from flows.sweep import run
from flows.terminal.command import errors_end_the_command, options_of
from tests.support.fakes import FakeEngine
from whisperbench.options.sweep import SweepConfig


@click.command()
@options_of(SweepConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    run(SweepConfig(**options), (sys.executable, "-m", "tests.support.fake_benchmark"), FakeEngine.facts.engine_version)


if __name__ == "__main__":
    main()
