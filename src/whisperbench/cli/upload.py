"""Log results that could not be logged when they were measured.

\b
  whisperbench upload --bundles results
  whisperbench upload --bundles results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2
  whisperbench upload --bundles 'results/20261122*'

A result is logged to the run for which it was measured, or to a new run. Results that are already on the server are not
logged again. Prints one line per result. After exit status 3 (no server), repeat the command to continue.
"""

from __future__ import annotations

from whisperbench.cli.options import command
from whisperbench.config.compare import UploadConfig


@command(UploadConfig, __doc__)
def main(config: UploadConfig) -> None:
    from whisperbench.cli import transcripts  # noqa: F401 - registers what it draws
    from whisperbench.cli.console import TerminalListener, echo
    from whisperbench.tracking.upload import upload_bundles

    upload_bundles(config, TerminalListener(), echo)
