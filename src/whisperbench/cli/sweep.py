"""Measure a grid of configurations, or search for the best one, as child runs of one parent run.

\b
  whisperbench sweep --model large-v3,large-v3-turbo --kv-cache-dtype auto,fp8 --max-num-seqs 128,256
  whisperbench sweep --grid published                       measures the six settings of the published table
  whisperbench sweep --grid published --dry-run             shows what would run, and for how long
  whisperbench sweep --objective reqs_per_sec --max-wer 2.5 --max-num-seqs 64..512 --kv-cache-dtype auto,fp8

Options of the benchmark take a list, separated by commas ("a,b" in double quotes is one value). When the command is
repeated, it measures only the configurations that are not finished. If a configuration fails, its child run is FAILED
and holds the cause and the log, and the sweep continues. The leaderboard goes to stdout, progress to stderr. Exit
status 1 if a configuration of a grid failed, or if a search found no setting; 2 if no configuration can be measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from whisperbench.cli.options import command
from whisperbench.config.sweep import SweepConfig

BENCHMARK = (sys.executable, "-m", "whisperbench", "benchmark")


@command(SweepConfig, __doc__)
def main(config: SweepConfig) -> None:
    run(config)


def run(config: SweepConfig, benchmark: Sequence[str] = BENCHMARK) -> None:
    """Run `whisperbench.sweep.run.sweep` and print the result."""
    from whisperbench.cli.console import TerminalListener
    from whisperbench.cli.report_table import printer
    from whisperbench.cli.sweep_table import LiveTable
    from whisperbench.sweep.run import sweep

    sweep(config, TerminalListener(LiveTable().draw), printer("auto"), benchmark)
