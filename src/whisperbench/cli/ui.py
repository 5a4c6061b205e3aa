"""Prints where the runs are, before `make ui` starts MLflow's pages: their own first page shows none."""

from __future__ import annotations

import click

from whisperbench.cli.options import errors_end_the_command
from whisperbench.tracking.client import connect
from whisperbench.tracking.experiment_page import experiment_links


@click.command(help=__doc__)
@errors_end_the_command
def main() -> None:
    for name, address in experiment_links(connect()):
        click.echo(f"{name}: {address}")


if __name__ == "__main__":
    main()
