"""Measure one configuration: load, warm up, transcribe, score, log one run.

\b
  whisperbench benchmark --model large-v3 --kv-cache-dtype fp8 --max-num-seqs 256
  whisperbench benchmark --model demo --corpus demo         runs on any machine
  mlflow run . -P model=large-v3                            creates the environment first

The result goes to stdout, as a block and as one line for pasting; progress goes to stderr. The result is written to
results_dir before it is sent to the tracking server.
"""

from __future__ import annotations

from whisperbench.cli.options import command
from whisperbench.config.benchmark import BenchmarkConfig


@command(BenchmarkConfig, __doc__)
def main(config: BenchmarkConfig) -> None:
    from whisperbench import benchmark
    from whisperbench.cli.console import TerminalListener, echo
    from whisperbench.cli.transcripts import draw_transcripts
    from whisperbench.results.summary import result_block, result_line

    found = benchmark.run(config, TerminalListener(draw_transcripts)).contents
    echo(f"\n{result_block(config, found)}\n")
    echo(result_line(config, found))
