"""What tests run in processes of their own, to be signalled and killed; imported once, then forked (`warm`)."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import mlflow.tracking.client

from flows import upload as upload_flow
from tests.support import fake_benchmark
from tests.support.bundles import contents_of, result_in
from whisperbench.tracking import write as tracking
from whisperbench.tracking.connection import connect

assert mlflow.tracking.client


def run_command(command: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """`fake_benchmark` or `upload` as a shell would run it, in a process group of its own, its output in `log`."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    os.environ.update(environment)
    tempfile.tempdir = None  # what the fork server found is not this test's
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [command, *arguments]
    {"fake_benchmark": fake_benchmark.main, "upload": upload_flow.main}[command](list(arguments))


def log_results(address: str, results_dir: Path, numbers: Sequence[int]) -> None:
    """Several runs, one after the other, each with its number in every part of it."""
    client = connect(address)
    for number in numbers:
        contents = contents_of(f"run-{number}", float(number))
        bundle = result_in(results_dir, contents, transcripts={number: f"said in run {number}"})
        run_id = tracking.open_run(client, experiment="soak", run_id=None, name=f"run-{number}", tags={})
        tracking.log_bundle(client, run_id, bundle)
        tracking.close_run(client, run_id, "FINISHED")
