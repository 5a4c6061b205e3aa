"""`mlflow run` in the environment that conda.yaml describes, built by uv (5 GB on disk)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.test_mlflow_run import upload_with

DISK_BYTES = 15 << 30


@pytest.mark.usefixtures("no_project_run")
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
def test_an_environment_built_by_uv(tmp_path: Path) -> None:
    """`mlflow run . --env-manager uv -e upload`."""
    if shutil.disk_usage(Path.home()).free < DISK_BYTES:
        pytest.skip("The environment of conda.yaml needs 15 GiB of free disk space.")
    upload_with("uv", tmp_path, 1700)
