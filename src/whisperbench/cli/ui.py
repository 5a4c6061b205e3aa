"""Show the runs in the browser: start MLflow's pages, and print the address of each experiment."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request

import click

from whisperbench.cli.options import Command

START_SECONDS = 60


@click.command(cls=Command, help=__doc__)
def main() -> None:
    from whisperbench.tracking.connection import connect, serves_ui, ui_address, ui_port
    from whisperbench.tracking.home import homes

    client = connect()
    server = None
    if not serves_ui(client):
        address = ["--backend-store-uri", str(client.tracking_uri), "--port", ui_port()]
        server = subprocess.Popen([sys.executable, "-m", "mlflow", "ui", *address])  # noqa: S603
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None and not _answers(f"{ui_address(client)}/health") and time.monotonic() < deadline:
            time.sleep(0.5)
    for name, link in homes(client):
        click.echo(f"{name}: {link}")
    if server is not None:
        sys.exit(server.wait())


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1):  # noqa: S310 - of this host
            return True
    except (urllib.error.URLError, OSError):
        return False
