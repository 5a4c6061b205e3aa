"""The benchmark command with a fake engine, for tests that kill it.

`python -m tests.support.fake_benchmark --model …`
"""

from __future__ import annotations

from pathlib import Path

import click

from tests.support.fakes import FakeEngine
from whisperbench import benchmark
from whisperbench.cli.console import TerminalListener
from whisperbench.cli.options import command
from whisperbench.cli.transcripts import draw_transcripts
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.base import Engine
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.parallel.engine import start_parallel
from whisperbench.engines.settings import EngineSettings
from whisperbench.results.summary import result_line


def start(settings: EngineSettings, hardware: Hardware, log: Path) -> Engine:
    """A fake engine, or with `gpus` above 1 several of them on Ray."""
    if settings.engines > 1 or settings.config.ray_address:
        return start_parallel(settings, hardware, log, FakeEngine)
    return FakeEngine(settings, hardware, log)


@command(BenchmarkConfig, None)
def main(config: BenchmarkConfig) -> None:
    click.echo(result_line(config, benchmark.run(config, TerminalListener(draw_transcripts), start).contents))


if __name__ == "__main__":
    main()
