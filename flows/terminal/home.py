"""Prints where the runs are, before `make ui` starts MLflow's pages: their own first page shows none."""

from __future__ import annotations

import click

from flows.terminal.command import errors_end_the_command
from whisperbench.tracking.connection import connect
from whisperbench.tracking.home import homes


@click.command(help=__doc__)
@errors_end_the_command
def main() -> None:
    for name, address in homes(connect()):
        click.echo(f"{name}: {address}")


if __name__ == "__main__":
    main()
