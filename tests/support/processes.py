"""What tests run in processes of their own, to be signalled and killed; imported once, then forked (`warm`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import git
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_svg
import mlflow
import mlflow.cli
import mlflow.server.fastapi_app
import mlflow.store.tracking.sqlalchemy_store
import mlflow.tracking.client
import tokenizers
import uvicorn.main
import whisper_normalizer.english

from flows import benchmark as benchmark_flow
from flows import upload as upload_flow
from tests.support import fake_benchmark, fake_sweep
from tests.support.bundles import contents_of, result_in
from whisperbench.results.environment import packages
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect

# What the commands import in the middle of their work; none of it starts a thread, which a fork would lose.
LATE = (
    *(git, matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, mlflow.store.tracking.sqlalchemy_store),
    *(mlflow.tracking.client, tokenizers, whisper_normalizer.english, packages(), mlflow.server.fastapi_app),
)


def serve(words: list[str]) -> None:
    """`mlflow server` with one worker, in this process: MLflow would start a process for uvicorn, and wait for it."""

    def run(command: list[str], extra_env: Mapping[str, str], **_: Any) -> None:
        os.environ.update(extra_env)
        uvicorn.main.main(command[command.index("uvicorn") + 1 :])

    mlflow.server._exec_cmd = run
    mlflow.cli.cli(["server", "--workers", "1", *words])


COMMANDS = {
    "benchmark": benchmark_flow.main,
    "fake_benchmark": fake_benchmark.main,
    "fake_sweep": fake_sweep.main,
    "server": serve,
    "upload": upload_flow.main,
}


def log_results(address: str, results_dir: Path, numbers: Sequence[int]) -> None:
    """Several runs, one after the other, each with its number in every part of it."""
    client = connect(address)
    for number in numbers:
        contents = contents_of(f"run-{number}", float(number))
        bundle = result_in(results_dir, contents, transcripts={number: f"said in run {number}"})
        run_id = tracking.open_run(client, experiment="soak", run_id=None, name=f"run-{number}", tags={})
        tracking.log_bundle(client, run_id, bundle)
        tracking.close_run(client, run_id, "FINISHED")
