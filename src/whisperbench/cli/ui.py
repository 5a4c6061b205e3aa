"""Show the runs in the browser: start the MLflow UI and print the address of each experiment.

The port is MLFLOW_PORT, or 5000. If MLFLOW_TRACKING_URI is the address of a server, only the addresses are printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import click

from whisperbench.cli.options import Command

if TYPE_CHECKING:
    from whisperbench.tracking.client import Client

START_SECONDS = 120.0
STDERR = 2  # its file descriptor


@click.command(cls=Command, help=__doc__)
def main() -> None:
    from whisperbench.processes.signals import signals_raise
    from whisperbench.tracking.client import connect, serves_ui, ui_address, ui_port

    client = connect()
    if serves_ui(client):
        print_links(client)
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", str(client.tracking_uri)]
    with signals_raise():
        # Without the processes of MLflow's job execution, which whisperbench does not use and which outlive a SIGTERM.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command += ["--port", ui_port()]
        server = subprocess.Popen(command, env=environment, stdout=STDERR)  # noqa: S603 - stdout holds only the links
        try:
            deadline = time.monotonic() + START_SECONDS
            while server.poll() is None and time.monotonic() < deadline and not answers(ui_address(client)):
                time.sleep(0.5)
            print_links(client)
            sys.exit(server.wait())
        finally:
            server.terminate()


def print_links(client: Client) -> None:
    """Print the name and the address of each experiment with benchmark runs."""
    from whisperbench.tracking.experiment_page import experiment_links

    for name, link in experiment_links(client):
        click.echo(f"{name}: {link}")


def answers(address: str) -> bool:
    """Whether a server answers at an address."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310 - an address on this host
            return True
    except OSError:
        return False
