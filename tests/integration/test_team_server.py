"""The team's server as docs/team-server starts it: PostgreSQL, passwords, artifacts through the server, two users."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.bundles import contents_of, held_by, result_in
from tests.support.commands import PROJECT
from tests.support.servers import Server, free_port
from whisperbench.errors import TrackingError
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
ADMIN_PASSWORD, ANN_PASSWORD, BEN_PASSWORD = "admins-long-%secret", "anns-long-secret", "bens-long-secret"
DATABASE_PASSWORD = "database-secret"  # noqa: S105

pytestmark = pytest.mark.skipif(not POSTGRES, reason="needs Debian's postgresql")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database in a cluster of its own, which takes passwords only."""
    home, port = Path(tmp_path_factory.mktemp("postgres")), free_port()
    programs, data = POSTGRES[-1].parent, home / "data"
    (home / "password").write_text(DATABASE_PASSWORD)

    def as_postgres(*command: object) -> None:
        user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}  # Postgres refuses to be root
        subprocess.run([str(word) for word in command], cwd="/", check=True, stdout=subprocess.DEVNULL, **user)

    if os.geteuid() == 0:
        for folder in (home, home / "password"):
            shutil.chown(folder, "postgres", "postgres")
        for parent in list(home.parents)[:-2]:  # pytest's folders are private
            parent.chmod(parent.stat().st_mode | 0o011)
    as_postgres(programs / "initdb", "-D", data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={home / 'password'}")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
    as_postgres(programs / "pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start")
    try:
        yield f"postgresql://mlflow:{DATABASE_PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        as_postgres(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def script(name: str) -> str:
    return str(PROJECT / "docs" / "team-server" / name)


def on_path() -> dict[str, str]:
    """The environment in which `python` and `mlflow` are those of this interpreter."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def team_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The script `serve` with PostgreSQL, and the users ann and ben made with `adduser`."""
    directory = tmp_path_factory.mktemp("team")
    settings = {
        **{"SERVER_DIR": str(directory / "server"), "STORE": postgres, "SERVER_WORKERS": "1"},
        **{"ALLOWED_HOSTS": "mlflow.example.org", "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD},
    }
    server = Server(directory, postgres, command=[script("serve")], env={**on_path(), **settings})
    server.environment["SERVER_PORT"] = str(server.port)
    with server:
        for name, password in (("ann", ANN_PASSWORD), ("ben", BEN_PASSWORD)):
            done = add_user(server, name, password, ("admin", ADMIN_PASSWORD))
            assert done.returncode == 0, done.stderr
        yield server


def add_user(server: Server, name: str, password: str, login: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """The script `adduser`, by the user who logs in so."""
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    return subprocess.run(
        [sys.executable, script("adduser"), name],
        env={**os.environ, **dict(zip(names, login, strict=True)), "MLFLOW_TRACKING_URI": server.address},
        input=f"{password}\n", capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def teammate(monkeypatch: pytest.MonkeyPatch, server: Server, name: str, password: str) -> Iterator[Any]:
    """A client with the three variables that a teammate sets."""
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        patch.setenv("MLFLOW_TRACKING_USERNAME", name)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        yield connect()


def logged_by(client: Any, folder: Path) -> str:
    run_id = tracking.open_run(client, experiment="whisperbench", run_id=None, name="demo", tags={})
    bundle = result_in(folder, contents_of(), tracking.origin_of(client, run_id))
    tracking.log_bundle(client, run_id, bundle)
    tracking.close_run(client, run_id, "FINISHED")
    return run_id


def test_two_teammates(team_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each logs to the shared experiment under an own name and reads the other's runs; neither deletes the other's."""
    runs = {}
    for name, password in (("ann", ANN_PASSWORD), ("ben", BEN_PASSWORD)):
        with teammate(monkeypatch, team_server, name, password) as client:
            runs[name] = logged_by(client, tmp_path / name)
    for name, password, other in (("ann", ANN_PASSWORD, "ben"), ("ben", BEN_PASSWORD, "ann")):
        with teammate(monkeypatch, team_server, name, password) as client:
            found = held_by(client, runs[other], tmp_path / f"{name} reads")
            assert found["tags"]["mlflow.user"] == other
            assert found["metrics"]["wer"][0][2] == 2.5
            assert "transcripts.json" in found["artifacts"]
            with pytest.raises(TrackingError, match="the permissions of this user"):
                client.delete_run(runs[other])
            with pytest.raises(TrackingError, match="the permissions of this user"):
                client.delete_experiment(client.get_run(runs[other]).info.experiment_id)
            assert client.get_run(runs[other]).info.lifecycle_stage == "active"


def test_a_wrong_password(team_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before the engine starts, without the password."""
    with pytest.raises(TrackingError) as caught, teammate(monkeypatch, team_server, "ann", "wrong-password"):
        pytest.fail("it must not connect")
    assert "wrong-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "login", "status", "message"),
    [
        ("ann", ("admin", ADMIN_PASSWORD), 1, "The user ann already exists. Choose another name."),
        ("carl", ("admin", "wrong-password"), 3, "Check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD"),
        ("carl", ("ann", ANN_PASSWORD), 3, "Check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD"),
    ],
    ids=["existing user", "wrong password", "not admin"],
)
def test_a_user_that_cannot_be_added(
    name: str, login: tuple[str, str], status: int, message: str, team_server: Server
) -> None:
    """One line, without a traceback, SQL or a hash."""
    done = add_user(team_server, name, "a-long-password", login)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (status, 1, "")
    assert message in done.stderr
    assert not re.search("INSERT|scrypt|password_hash", done.stderr)


def test_a_wrong_password_of_the_database(postgres: str) -> None:
    """The reason of PostgreSQL, at once."""
    with pytest.raises(TrackingError, match="password authentication failed"):
        connect(postgres.replace(DATABASE_PASSWORD, "wrong-secret"))


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/api/2.0/mlflow/experiments/search?max_results=1", "mlflow.example.org", 401),
        ("/api/2.0/mlflow-artifacts/artifacts", "mlflow.example.org", 401),
        ("/get-artifact?path=transcripts.json&run_uuid=0", "mlflow.example.org", 401),
        ("/ajax-api/2.0/mlflow/users/get?username=admin", "mlflow.example.org", 401),
        ("/api/2.0/mlflow/experiments/search?max_results=1", "evil.example.org", 403),
    ],
)
def test_an_anonymous_client_reads_nothing(team_server: Server, path: str, host: str, status: int) -> None:
    """Neither runs nor artifacts nor users; only allowed names of hosts reach the server, which stops a browser that
    was tricked into sending another one."""
    request = urllib.request.Request(f"{team_server.address}{path}", headers={"Host": host})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)  # noqa: S310
    assert caught.value.code == status


def test_no_password_is_shown(team_server: Server) -> None:
    """Not in the log, not in the list of processes; the files that hold one are the owner's alone."""
    assert DATABASE_PASSWORD not in team_server.log.read_text()
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert any("uvicorn" in command and str(team_server.port) in command for command in commands)
    assert not any(DATABASE_PASSWORD in command for command in commands)
    folder = team_server.directory / "server"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder / "basic_auth.ini", folder / "secret_key"))


def test_the_first_start_needs_a_password_for_admin(tmp_path: Path) -> None:
    """A short one, or none, is refused with what to do."""
    for password in ("", "short"):
        done = subprocess.run(
            [script("serve")],
            env={**on_path(), "SERVER_DIR": str(tmp_path / "server"), "MLFLOW_AUTH_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert "MLFLOW_AUTH_ADMIN_PASSWORD to 12 characters" in done.stderr
