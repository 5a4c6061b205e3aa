"""Log results that could not be logged when they were measured.

\b
  whisperbench upload --bundles results
  whisperbench upload --bundles results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2
  whisperbench upload --bundles 'results/20261122*'

Each goes to the run that it was measured for, or to a new one. A result that is on the server already is not logged
again. One line per result on stdout. After exit status 3 (no server) the same command continues.
"""

from __future__ import annotations

import click

from whisperbench.cli.options import command
from whisperbench.config.compare import UploadConfig


@command(UploadConfig, __doc__)
def main(config: UploadConfig) -> None:
    from whisperbench.cli import transcripts  # noqa: F401 - registers what it draws
    from whisperbench.cli.console import TerminalListener
    from whisperbench.tracking.upload import upload_bundles

    upload_bundles(config, TerminalListener(), click.echo)
