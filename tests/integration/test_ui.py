"""`whisperbench ui` starts MLflow's pages, prints the links, and ends with them."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import command, run, start
from tests.support.servers import free_port
from tests.support.stores import log, run_of
from whisperbench.cli.ui import answers


@pytest.mark.usefixtures("no_project_run")
def test_links_are_printed_when_the_pages_answer(client: Any, tmp_path: Path) -> None:
    """SIGTERM ends the server too."""
    log(client, run_of())
    address = f"http://127.0.0.1:{free_port()}"
    process = start(command("ui"), tmp_path, {}, MLFLOW_PORT=address.rpartition(":")[2])
    assert process.stdout is not None
    assert f"{address}/#/experiments/" in process.stdout.readline()
    assert answers(address)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    while answers(address):  # the timeout of the test is the limit
        time.sleep(0.2)


@pytest.mark.usefixtures("no_project_run")
def test_a_port_in_use_is_an_error(client: Any, tmp_path: Path) -> None:
    """Another server would answer there, so no link is printed; the message names a remedy."""
    log(client, run_of())
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        status, out, err = run(command("ui"), tmp_path, {}, MLFLOW_PORT=port)
    assert (status, out) == (3, "")
    assert f"MLflow's pages cannot use port {port}: " in err
    assert "MLFLOW_PORT=5001" in err
