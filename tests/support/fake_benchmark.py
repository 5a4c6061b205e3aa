"""The benchmark command with a fake engine, for tests that kill it.

`python -m tests.support.fake_benchmark --model …`
"""

from __future__ import annotations

from typing import Any

import click

from flows.terminal.command import errors_end_the_command, options_of
from flows.terminal.console import TerminalListener
from tests.support.fakes import FakeEngine
from whisperbench import benchmark
from whisperbench.options import BenchmarkConfig
from whisperbench.results.summary import closing_line


@click.command()
@options_of(BenchmarkConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    bundle = benchmark.run(BenchmarkConfig(**options), TerminalListener(), FakeEngine)
    click.echo(closing_line(bundle.contents.params, bundle.contents.metrics))


if __name__ == "__main__":
    main()
