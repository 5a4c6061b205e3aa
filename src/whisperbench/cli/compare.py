"""Compare runs of a tracking server: the best GPU and setting, differences, and a regression gate.

\b
  whisperbench compare                                      the best setting of each model and GPU
  whisperbench compare --prices H100=2.10,A10=0.60          the same with costs, the cheapest first
  whisperbench compare --full --reference <id>              all rows, with verdicts against that run
  whisperbench compare --runs <id>,<id>                     what changed between two runs
  whisperbench compare --baseline large-v3-fp8-seqs256      in CI: is the newest run worse?
  whisperbench compare --rescore                            scores again with the installed normaliser

The short answer (at most 20 lines; everything with --full) goes to stdout, by default as markdown if stdout is not a
terminal; messages go to stderr. Files are written to results_dir and logged as artifacts of a compare run. In CI, use
this command and not `mlflow run`, which ends with status 1 after every failure.
"""

from __future__ import annotations

import sys

from whisperbench.cli.options import command
from whisperbench.config.compare import CompareConfig


@command(CompareConfig, __doc__)
def main(config: CompareConfig) -> None:
    from whisperbench.cli.console import TerminalListener
    from whisperbench.cli.report_table import printer
    from whisperbench.cli.transcripts import draw_difference
    from whisperbench.comparison import compare

    sys.exit(compare(config, TerminalListener(draw_difference), printer(config.format)))
