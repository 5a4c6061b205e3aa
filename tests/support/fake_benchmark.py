"""The benchmark command with a fake engine, for tests that kill it.

`python -m tests.support.fake_benchmark --model …`
"""

from __future__ import annotations

from typing import Any

import click

from flows.benchmark import benchmark
from flows.terminal.command import errors_end_the_command, options_of
from tests.support.fakes import FakeEngine
from whisperbench.options import BenchmarkConfig


@click.command()
@options_of(BenchmarkConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    benchmark(BenchmarkConfig(**options), FakeEngine)


if __name__ == "__main__":
    main()
