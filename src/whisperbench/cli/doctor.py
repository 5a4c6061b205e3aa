"""Check this machine before a long run.

\b
  whisperbench doctor
  whisperbench doctor --model large-v3 --corpus /data/LibriSpeech
  whisperbench doctor --json

Prints one line per check: ok, warning or problem, and what to do. Exit status 1 if a check found a problem. Runs are
closed if they are RUNNING and their process on this host has died.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import click

from whisperbench.cli.options import command
from whisperbench.config.compare import DoctorConfig

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@command(DoctorConfig, __doc__)
def main(config: DoctorConfig) -> None:
    from whisperbench.doctor import examine
    from whisperbench.engines.hardware import detect_hardware
    from whisperbench.text import escape_control, redact

    found = []
    for name, check in examine(config, detect_hardware(os.environ.get("CUDA_VISIBLE_DEVICES"))):
        found.append({"name": name, **dataclasses.asdict(check)})
        if not config.json:
            text = f"{check.found} -> {check.remedy}" if check.remedy else check.found
            status = click.style(f"{check.status:<8}", fg=COLOURS[check.status])
            click.echo(f"{status} {name}: {escape_control(redact(text, os.environ))}")
    if config.json:
        click.echo(redact(json.dumps(found, indent=1), os.environ))
    if any(check["status"] == "problem" for check in found):
        sys.exit(1)
