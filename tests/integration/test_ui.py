"""`whisperbench ui` starts MLflow's pages, prints the links, and ends with them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commands import python_path
from tests.support.stores import fresh_store, log, run_of
from whisperbench.cli.ui import answers
from whisperbench.tracking.client import connect


def test_links_are_printed_when_the_pages_answer(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends the server too."""
    address = fresh_store(tmp_path, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    log(connect(), run_of())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "whisperbench", "ui"]
    environment = {**python_path(), "MLFLOW_PORT": port}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}/#/experiments/" in process.stdout.readline()
        assert answers(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 30
    while answers(f"http://127.0.0.1:{port}") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not answers(f"http://127.0.0.1:{port}")
