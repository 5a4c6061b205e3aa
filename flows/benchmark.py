"""Measure one configuration: load, warm up, transcribe, score, log one run.

\b
  mlflow run . -P model=large-v3                          on a GPU machine
  mlflow run . -P model=demo -P corpus=demo               on any machine
  PYTHONPATH=src python -m flows.benchmark --model large-v3 --kv_cache_dtype fp8 --max_num_seqs 256

The last line on stdout is the result; progress goes to stderr.  Before anything is sent to the tracking
server, the whole result is on local disk in results_dir.
"""

from __future__ import annotations

from typing import Any

import click

from whisperbench import benchmark
from whisperbench.cli.console import TerminalListener
from whisperbench.cli.options import errors_end_the_command, options_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.summary import result_line


@click.command(help=__doc__)
@options_of(BenchmarkConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    bundle = benchmark.run(BenchmarkConfig(**options), TerminalListener())
    click.echo(result_line(bundle.contents.params, bundle.contents.metrics))


if __name__ == "__main__":
    main()
