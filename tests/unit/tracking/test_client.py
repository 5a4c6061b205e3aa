"""Errors of libraries and endless answers become one sentence with status 3, which names what to change."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from whisperbench.errors import TrackingError
from whisperbench.tracking import client as tracking_client
from whisperbench.tracking.client import connect, search_experiments, tracking_errors

pytestmark = pytest.mark.usefixtures("no_project_run")


class Endless(BaseHTTPRequestHandler):
    """A tracking server whose list of experiments never ends."""

    def do_GET(self) -> None:
        self._answer({"experiments": [], "next_page_token": "more"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer({"experiments": [], "runs": [], "next_page_token": "more"})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def endless() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_without_end(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that has no end is an error at its limit."""
    monkeypatch.setattr(tracking_client, "MAX_PAGES", 5)
    with pytest.raises(TrackingError, match="did not finish its list of experiments within 5 pages"):
        search_experiments(connect(endless))


def test_every_call_has_a_timeout(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one in which MLflow itself follows the server's answers, such as a download of endless folders."""
    client = connect(endless)
    monkeypatch.setattr(tracking_client, "CALL_SECONDS", 0.2)
    block = threading.Event()
    monkeypatch.setattr(client._client, "download_artifacts", lambda *_: block.wait(5))
    with pytest.raises(TrackingError, match="did not answer within 0 s"):
        client.download_artifacts("run", "")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("mysql://ann:geheim1@host/db", r"MySQLdb.*Install the Python package mysqlclient"),
        ("mssql+pyodbc://ann:geheim1@host/db", r"pyodbc.*Install the Python package pyodbc"),
        ("http://[::1", r"MLFLOW_TRACKING_URI=http://\[::1 is not an address"),
        ("nonsense://host", r"failed to answer .* Check MLFLOW_TRACKING_URI"),
        ("http://host:port", r"failed to answer .* Check MLFLOW_TRACKING_URI"),
        # closed port: the error is immediate, and MLflow would repeat it for 100 s; psycopg may not be installed
        ("postgresql://ann:geheim1@127.0.0.1:9/db", r"failed to answer .*(refused|Install the Python package psycopg)"),
    ],
)
def test_an_address_that_cannot_be_used(address: str, reason: str) -> None:
    """Status 3; the message names the package or the setting, and no password."""
    with pytest.raises(TrackingError, match=reason) as caught:
        connect(address)
    assert caught.value.exit_status == 3
    assert "geheim1" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("s3://bucket/x", "Install the Python package boto3"),
        ("gs://bucket/x", "Install the Python package google-cloud-storage"),
        ("wasbs://container@account.blob.core.windows.net/x", "Install the Python package azure-storage-blob"),
        ("sftp://host/x", "Install the Python package paramiko"),
    ],
)
def test_an_artifact_store_without_its_library(location: str, reason: str) -> None:
    """It is noticed with the first artifact, before the measurement."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with pytest.raises(TrackingError, match=reason), tracking_errors("http://host", "store artifacts"):
        get_artifact_repository(location).list_artifacts()


@pytest.mark.parametrize(
    ("module", "setting"),
    [
        ("botocore.exceptions", "AWS_ACCESS_KEY_ID"),
        ("google.auth.exceptions", "GOOGLE_APPLICATION"),
        ("google.protobuf.json_format", "Check MLFLOW_TRACKING_URI and the server"),
    ],
)
def test_missing_credentials(module: str, setting: str) -> None:
    """The message names the variables that the library reads; MLflow parses the answers of servers with protobuf."""
    error = type("NoCredentialsError", (Exception,), {"__module__": module})
    message = f"Unable to locate credentials.*{setting}"
    with pytest.raises(TrackingError, match=message), tracking_errors("http://host", "store artifacts"):
        raise error("Unable to locate credentials")


def test_a_defect_is_not_an_error_of_the_server() -> None:
    """It ends with status 70 and a traceback."""
    with pytest.raises(TypeError), tracking_errors("http://host", "answer"):
        raise TypeError
