"""A SQLite store that cannot be used is one sentence, status 3 and no traceback; a new one is created once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.commands import python_path
from tests.unit.tracking.test_sqlite_store import garbage


def test_three_at_once_on_a_fresh_store(tmp_path: Path) -> None:
    """All of them find it made."""
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    program = f"from whisperbench.tracking.client import connect; connect({address!r}).search_experiments()"
    several = [
        subprocess.Popen([sys.executable, "-c", program], env=python_path(), stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=200)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], "\n".join(said)


def test_compare_ends_with_3(tmp_path: Path) -> None:
    """1 would mean that a run is worse."""
    garbage(tmp_path / "mlflow.db")
    environment = {**python_path(), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-m", "whisperbench", "compare", "--baseline", "x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: The tracking server sqlite:///")
    assert "Traceback" not in done.stderr
