"""`mlflow run` ends every run as FINISHED or FAILED after its project has ended, also one that was closed as KILLED
(3.17 compares the status's name with numbers).  This process outlives it and puts the status right:

    python -m whisperbench.tracking.killed_status <process id of mlflow run> <run id>
"""

from __future__ import annotations

import subprocess
import sys

MLFLOW_SECONDS = 60
"""mlflow run ends within moments of its project; if it does not, the status stays as it is."""


def mark_killed_after(launcher: int, run_id: str) -> None:
    """Start this module in a session of its own; it ends by itself a few seconds after `mlflow run`."""
    command = [sys.executable, "-m", __name__, str(launcher), run_id]
    nowhere = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)  # noqa: S603


def main(launcher: int, run_id: str) -> None:
    """Wait for the end of the process `launcher`; then FAILED becomes KILLED."""
    import psutil

    from whisperbench.tracking.connection import connect
    from whisperbench.tracking.write import close_run

    client = connect()  # MLflow takes seconds to import: meanwhile mlflow run ends
    try:
        psutil.Process(launcher).wait(MLFLOW_SECONDS)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return
    if client.get_run(run_id).info.status == "FAILED":
        close_run(client, run_id, "KILLED")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
