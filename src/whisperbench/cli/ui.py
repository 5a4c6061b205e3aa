"""Show the runs in the browser: start the MLflow UI and print the address of each experiment.

The port is MLFLOW_PORT, or 5000. If MLFLOW_TRACKING_URI is the address of a server, only the addresses are printed.
The addresses are printed when the pages answer; a port in use ends the command with status 3.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import click

from whisperbench.cli.options import Command
from whisperbench.errors import TrackingError

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
    require_free_port(ui_port())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", str(client.tracking_uri)]
    with signals_raise():
        # Without the processes of MLflow's job execution, which whisperbench does not use and which outlive a SIGTERM.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command += ["--port", ui_port()]
        server = subprocess.Popen(command, env=environment, stdout=STDERR)  # noqa: S603 - stdout holds only the links
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(ui_address(client)):
                if server.poll() is not None:
                    raise TrackingError("MLflow's pages ended before they answered. The cause is above.")
                if time.monotonic() > deadline:
                    raise TrackingError(f"MLflow's pages did not answer within {START_SECONDS:.0f} s. Try again.")
                time.sleep(0.5)
            print_links(client)
            sys.exit(server.wait())
        finally:
            server.terminate()


def require_free_port(port: str) -> None:
    """Raise a TrackingError if a port of this host is in use, because another server would answer there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of connections that ended is free
        try:
            probe.bind(("127.0.0.1", int(port)))
        except (OSError, OverflowError, ValueError) as error:
            raise TrackingError(
                f"MLflow's pages cannot use port {port}: {error}. Choose another one: MLFLOW_PORT=5001 whisperbench ui "
                "(or make ui MLFLOW_PORT=5001)."
            ) from error


def print_links(client: Client) -> None:
    """Print the name and the address of each experiment with benchmark runs."""
    from whisperbench.cli.console import echo
    from whisperbench.tracking.experiment_page import experiment_links

    for name, link in experiment_links(client):
        echo(f"{name}: {link}")


def answers(address: str) -> bool:
    """Whether a server answers at an address."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310 - an address on this host
            return True
    except OSError:
        return False
