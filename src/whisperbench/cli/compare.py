"""Compare runs of a tracking server: leaderboards with significance, what changed, and a regression gate.

\b
  whisperbench compare                                      every finished run
  whisperbench compare --sort reqs_per_sec --gpu H100
  whisperbench compare --sort cost --prices 'H100=2.10,A10=0.60'
  whisperbench compare --runs <id>,<id>                     what changed between two runs
  whisperbench compare --baseline large-v3-fp8-seqs256      for CI: is the newest run worse?
  whisperbench compare --rescore                            with the installed normaliser

The short answer (with --full all tables) goes to stdout, as markdown if that is not a terminal (or as --format says),
everything else to stderr. Files are written to results_dir and logged as artifacts of a compare run. `mlflow run` turns
every failure into status 1, so CI calls this command.
"""

from __future__ import annotations

import sys

from whisperbench.cli.options import command
from whisperbench.config.compare import CompareConfig


@command(CompareConfig, __doc__)
def main(config: CompareConfig) -> None:
    from whisperbench.cli import transcripts  # noqa: F401 - registers what it draws
    from whisperbench.cli.console import TerminalListener
    from whisperbench.cli.report_table import printer
    from whisperbench.comparison import compare

    sys.exit(compare(config, TerminalListener(), printer(config.format)))
