"""Compare the runs of a team: leaderboards, significance, what changed, and a regression gate.

\b
  mlflow run . -e compare                                       every finished run on the tracking server
  mlflow run . -e compare -P sort=reqs_per_sec -P gpu='*H100*'
  mlflow run . -e compare -P sort=cost -P prices='H100=2.10,A10=0.60'
  mlflow run . -e compare -P runs=<id>,<id>                     what changed between two runs (8 digits do)
  python -m flows.compare --baseline large-v3-fp8-256           for CI: is the newest run worse?
  mlflow run . -e compare -P rescore=true                       with today's normaliser

The short answer (all tables with full=true) goes to stdout, as markdown if that is not a terminal, everything else to
stderr.  Files are written to results_dir and logged as artifacts of a compare run.  Exit status with baseline: 0 as
good, 1 worse, 2 not comparable, 3 no server (`mlflow run` makes every failure 1, so CI calls the module, with
PYTHONPATH=src).
"""

from __future__ import annotations

import sys
from typing import Any

import click

from whisperbench.cli.console import TerminalListener
from whisperbench.cli.options import errors_end_the_command, options_of
from whisperbench.cli.report_table import printer
from whisperbench.comparison import compare
from whisperbench.config.compare import CompareConfig


@click.command(help=__doc__)
@options_of(CompareConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    config = CompareConfig(**options)
    sys.exit(compare(config, TerminalListener(), printer(config.format)))


if __name__ == "__main__":
    main()
