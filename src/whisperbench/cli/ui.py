"""Show the runs in the browser: start the MLflow UI and print the address of each experiment.

The port is MLFLOW_PORT, or 5000. If MLFLOW_TRACKING_URI is the address of a server, only the addresses are printed.
The addresses are printed when the pages answer; a port in use ends the command with status 3.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import click

from whisperbench.cli.options import Command
from whisperbench.errors import ConfigError, TrackingError

if TYPE_CHECKING:
    from whisperbench.tracking.client import Client

START_SECONDS = 120.0


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
    command += ["--port", ui_port()]
    # Without the processes of MLflow's job execution, which whisperbench does not use and which outlive a SIGTERM.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    click.echo("starting MLflow's pages", err=True)
    with signals_raise(), tempfile.NamedTemporaryFile(prefix="mlflow-ui-") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 - MLflow's own command
        try:
            wait_for(server, ui_address(client), Path(log.name))
            print_links(client)
            sys.exit(server.wait())
        finally:
            server.terminate()


def require_free_port(port: str) -> None:
    """Refuse a port that is not a number, or that another server uses, which would answer there."""
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ConfigError(f"MLFLOW_PORT={port} is not a port. Use a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of connections that ended is free
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError as error:
            raise TrackingError(
                f"MLflow's pages cannot use port {port}: {error}. Set MLFLOW_PORT to another one, for example 5001."
            ) from error


def wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until a server answers; raise a TrackingError with the end of its output if it does not."""
    from whisperbench.files import tail

    deadline = time.monotonic() + START_SECONDS
    while not answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TrackingError(f"MLflow's pages did not start at {address}. Their output:\n{tail(log).strip()}")
        time.sleep(0.5)


def answers(address: str) -> bool:
    """Whether a server answers at an address."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310 - an address on this host
            return True
    except OSError:
        return False


def print_links(client: Client) -> None:
    """Print the name and the address of each experiment with benchmark runs; without one, the address of the UI."""
    from whisperbench.cli.console import echo
    from whisperbench.tracking.client import ui_address
    from whisperbench.tracking.experiment_page import experiment_links

    for name, link in list(experiment_links(client)) or [("no benchmark runs yet", ui_address(client))]:
        echo(f"{name}: {link}")
