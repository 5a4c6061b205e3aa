"""`whisperbench ui` starts MLflow's pages, prints the links, and ends with them."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import command, run, start
from tests.support.servers import free_port
from tests.support.stores import log, run_of
from whisperbench.cli.ui import answers, wait_for
from whisperbench.errors import TrackingError

pytestmark = pytest.mark.usefixtures("no_project_run")


def test_links_are_printed_when_the_pages_answer(client: Any, tmp_path: Path) -> None:
    """Nothing else is printed, and SIGTERM ends the server too."""
    log(client, run_of())
    address = f"http://127.0.0.1:{free_port()}"
    process = start(command("ui"), tmp_path, {}, MLFLOW_PORT=address.rpartition(":")[2])
    assert process.stdout is not None
    assert f"{address}/#/experiments/" in process.stdout.readline()
    assert answers(address)
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == ("", "starting MLflow's pages\nerror: stopped by SIGTERM\n")
    assert process.returncode == 128 + signal.SIGTERM
    while answers(address):  # the timeout of the test is the limit
        time.sleep(0.2)


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    """The error contains its output."""
    with (tmp_path / "log").open("w") as output:
        server = subprocess.Popen(["bash", "-c", "echo no such table; exit 1"], stdout=output)
    with pytest.raises(TrackingError, match=r"did not start at http://127\.0\.0\.1:9\..*\nno such table"):
        wait_for(server, "http://127.0.0.1:9", tmp_path / "log")


def test_a_port_that_cannot_be_used(client: Any, tmp_path: Path) -> None:
    """Another server would answer at a port in use, so no link is printed; a port that is no number is wrong usage."""
    log(client, run_of())
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        status, out, err = run(command("ui"), tmp_path, {}, MLFLOW_PORT=port)
    assert (status, out) == (3, "")
    assert f"MLflow's pages cannot use port {port}: " in err
    status, out, err = run(command("ui"), tmp_path, {}, MLFLOW_PORT="abc")
    assert (status, out) == (2, "")
    assert err == "error: MLFLOW_PORT=abc is not a port. Use a number from 1 to 65535.\n"
