"""Log result bundles that could not be logged when they were measured.

\b
  mlflow run . -e upload -P bundles=results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2
  mlflow run . -e upload -P bundles='results/*'
  PYTHONPATH=src python -m flows.upload --bundles results

Each goes to the run it was measured for, or to a new one.  A bundle that is on the server already is left
as it is.  One line per bundle on stdout.  Exit status 3 without a server; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from flows.terminal import console
from flows.terminal.command import errors_end_the_command, options_of
from whisperbench.errors import TrackingError
from whisperbench.options import UploadConfig
from whisperbench.results.bundle import read_bundle
from whisperbench.results.contents import KIND
from whisperbench.supervise.signals import signals_raise
from whisperbench.tracking import write as tracking
from whisperbench.tracking.tracked_run import tracked_run
from whisperbench.tracking.upload import find_bundles

if TYPE_CHECKING:
    from mlflow import MlflowClient


@click.command(help=__doc__)
@options_of(UploadConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    config = UploadConfig(**options)
    found = find_bundles(config.bundles)
    for path in found.partial:
        console.say(f"not a result, cut off while it was measured: {path}")
    bundles = [read_bundle(path) for path in found.bundles]  # all of them before anything is sent
    client = tracking.connect()
    with run_of_the_project(client):
        for done, each in enumerate(bundles):
            try:
                run_id, was_missing = tracking.upload(client, each)
            except TrackingError as error:
                raise TrackingError(
                    f"{error} {done} of {len(bundles)} bundles are logged; {each.directory} is safe on disk. "
                    "Run the same command again."
                ) from error
            each.mark_logged(tracking.without_password(client.tracking_uri), run_id)
            click.echo(f"{each.directory}: {'logged to' if was_missing else 'is already in'} run {run_id}")


@contextlib.contextmanager
def run_of_the_project(client: MlflowClient) -> Iterator[None]:
    """`mlflow run` opens a run for the command itself: name it for what it is; otherwise open none."""
    if "MLFLOW_RUN_ID" in os.environ:
        with tracked_run(client, "upload", {KIND: "upload"}):
            yield
    else:
        with signals_raise():
            yield


if __name__ == "__main__":
    main()
