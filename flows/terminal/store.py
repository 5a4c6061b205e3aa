"""Makes the tracking store and an experiment in it, where they are missing: two `mlflow run` at once that find none
spoil each other's work."""

from __future__ import annotations

import click

from flows.terminal.command import errors_end_the_command
from whisperbench.tracking.connection import connect, explained
from whisperbench.tracking.write import experiment_id_of


@click.command(help=__doc__)
@click.argument("experiment", default="Default")
@errors_end_the_command
def main(experiment: str) -> None:
    client = connect()
    with explained(client, "does not make an experiment"):
        experiment_id_of(client, experiment)


if __name__ == "__main__":
    main()
