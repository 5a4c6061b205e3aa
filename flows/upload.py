"""Log result bundles that could not be logged when they were measured.

\b
  mlflow run . -e upload -P bundles=results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2
  mlflow run . -e upload -P bundles='results/*'
  PYTHONPATH=src python -m flows.upload --bundles results

Each goes to the run it was measured for, or to a new one.  A bundle that is on the server already is left
as it is.  One line per bundle on stdout.  Exit status 3 without a server; the same command goes on from there.
"""

from __future__ import annotations

from typing import Any

import click

from whisperbench.cli.console import TerminalListener
from whisperbench.cli.options import errors_end_the_command, options_of
from whisperbench.config.compare import UploadConfig
from whisperbench.tracking.upload import upload_bundles


@click.command(help=__doc__)
@options_of(UploadConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    upload_bundles(UploadConfig(**options), TerminalListener(), click.echo)


if __name__ == "__main__":
    main()
