"""Measure a grid of configurations, or search for the best one: a child run each under one parent run.

\b
  whisperbench sweep --model large-v3,large-v3-turbo --kv-cache-dtype auto,fp8 --max-num-seqs 128,256
  whisperbench sweep --grid published                       the six settings of the published table
  whisperbench sweep --grid published --dry-run             what would run, and for how long
  whisperbench sweep --objective reqs_per_sec --max-wer 2.5 --max-num-seqs 64..512 --kv-cache-dtype auto,fp8

Options of the benchmark take a list, separated by commas ("a,b" in double quotes is one value). The same command again
measures only what is not finished. A configuration that fails is a FAILED child run with its cause and its log, and the
sweep continues. The leaderboard goes to stdout, progress to stderr. Exit status 1 if a configuration of a grid failed,
or if a search found no setting.
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


def run(config: SweepConfig, benchmark: Sequence[str] = BENCHMARK, vllm_version: str | None = None) -> None:
    """Sweep, and print the result; see `whisperbench.sweep.run.sweep`."""
    from whisperbench.cli import sweep_table  # noqa: F401 - registers what it draws
    from whisperbench.cli.console import TerminalListener
    from whisperbench.cli.report_table import printer
    from whisperbench.sweep.run import sweep

    sweep(config, TerminalListener(), printer("auto"), benchmark, vllm_version)
