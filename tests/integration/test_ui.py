"""`whisperbench ui` starts MLflow's pages, prints the links, and ends with them."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import command, start
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
