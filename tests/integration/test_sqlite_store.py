"""A SQLite store that is damaged ends a command with status 3; a new one is created once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.commands import command, python_path, run
from tests.unit.tracking.test_sqlite_store import garbage


def test_three_processes_create_a_store(tmp_path: Path) -> None:
    """MLflow alone lets processes corrupt each other's tables."""
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    program = f"from whisperbench.tracking.client import connect; connect({address!r}).search_experiments()"
    several = [
        subprocess.Popen([sys.executable, "-c", program], env=python_path(), stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], "\n".join(said)


def test_compare_ends_with_3(tmp_path: Path) -> None:
    """1 would mean that a run is worse."""
    garbage(tmp_path / "mlflow.db")
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    status, _, err = run(command("compare"), tmp_path, {"baseline": "x"}, **environment)
    assert status == 3, err
    assert err.startswith("error: The tracking server sqlite:///")
    assert "Traceback" not in err
