"""Measure a grid of configurations, or search for the best one: a child run each under one parent run.

\b
  mlflow run . -e sweep -P models=large-v3,large-v3-turbo -P kv_cache_dtypes=auto,fp8 -P max_num_seqs=128,256
  mlflow run . -e sweep -P grid=published                       the six settings of the published table
  mlflow run . -e sweep -P grid=published -P dry_run=true       what would run, and for how long
  mlflow run . -e sweep -P objective=reqs_per_sec -P max_wer=2.5 -P max_num_seqs=64..512 -P kv_cache_dtypes=auto,fp8

The same command again measures only what has not been finished, whatever ended the first one.  A
configuration that fails is a FAILED child run with its cause and its log, and the sweep goes on.
The leaderboard of the sweep goes to stdout (as markdown where that is no terminal), progress to stderr.  Exit status
1 if a configuration of a grid failed, or if a search found no setting.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from whisperbench.cli.console import TerminalListener
from whisperbench.cli.options import errors_end_the_command, options_of
from whisperbench.cli.report_table import printer
from whisperbench.config.sweep import SweepConfig, SweepOptions
from whisperbench.sweep.run import sweep

BENCHMARK = (sys.executable, "-m", "flows.benchmark")


@click.command(help=__doc__)
@options_of(SweepConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    run(SweepConfig(**options))


def run(options: SweepOptions, command: Sequence[str] = BENCHMARK, vllm_version: str | None = None) -> None:
    """Sweep and print what was found, also where not everything succeeded; see `whisperbench.sweep.run.sweep`."""
    sweep(options, TerminalListener(), printer("auto"), command, vllm_version)


if __name__ == "__main__":
    main()
