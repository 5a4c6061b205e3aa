"""Say what is missing before an hour of GPU time is spent.

\b
  mlflow run . -e doctor
  PYTHONPATH=src python -m flows.doctor --model large-v3 --corpus /data/LibriSpeech
  PYTHONPATH=src python -m flows.doctor --json true

One line per check: ok, warning or problem, and what to do.  Exit status 1 when there is a problem.
Runs that a dead process of this host left RUNNING are closed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

import click

from whisperbench.cli.options import errors_end_the_command, options_of
from whisperbench.config.compare import DoctorConfig
from whisperbench.doctor import Check, Setup, examine
from whisperbench.engines.hardware import detect_hardware
from whisperbench.files import cache_directory
from whisperbench.processes.watch import RUN_ID
from whisperbench.text import escape_control, redact

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(help=__doc__)
@options_of(DoctorConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    config = DoctorConfig(**options)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    setup = Setup(
        config,
        detect_hardware(visible),
        cache_directory(),
        os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        os.environ.get(RUN_ID),
        detect_hardware(visible, 0).gpu_count,
    )
    checks = []
    for check in examine(setup):
        checks.append(check)
        if not config.json:
            show(check)
    if config.json:
        click.echo(redact(json.dumps([dataclasses.asdict(check) for check in checks], indent=1), os.environ))
    if any(check.status == "problem" for check in checks):
        sys.exit(1)


def show(check: Check) -> None:
    status = click.style(f"{check.status:<8}", fg=COLOURS[check.status])
    text = f"{check.found} -> {check.remedy}" if check.remedy else check.found
    click.echo(f"{status} {check.name}: {escape_control(redact(text, os.environ))}")


if __name__ == "__main__":
    main()
