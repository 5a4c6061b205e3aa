"""A Hugging Face hub of one repository, and processes that use it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal, Self

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"


class FakeHub(http.server.ThreadingHTTPServer):
    """The answers of the hub that a snapshot needs, over one directory of files; it notes which are fetched."""

    daemon_threads = True

    def __init__(self, kind: Literal["models", "datasets"], repository: str, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repository, self.files, self.fetched = repository, files, set[str]()
        self.interface = f"/api/{kind}/{repository}"
        self.downloads = f"/{repository}/resolve/" if kind == "models" else f"/datasets/{repository}/resolve/"
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None:
        """Keep the test's output for the test."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        contents = {
            file.relative_to(hub.files).as_posix(): file.read_bytes()
            for file in sorted(hub.files.rglob("*"))
            if file.is_file()
        }
        if path.startswith(hub.downloads):
            name = path.removeprefix(hub.downloads).partition("/")[2]
            hub.fetched.add(name)
            self._answer(200, contents[name], {"ETag": f'"{_digest(contents[name])}"', "X-Repo-Commit": COMMIT})
        elif not path.startswith(hub.interface):
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", COMMIT):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            self._answer(200, json.dumps([_entry(*file) for file in contents.items()]).encode())
        else:
            siblings = [{"rfilename": name} for name in contents]
            self._answer(200, json.dumps({"id": hub.repository, "sha": COMMIT, "siblings": siblings}).encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run_with_hub(
    endpoint: str, home: Path, code: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python `code` in a fresh process whose hub is at `endpoint` and whose cache of it is `home`."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
