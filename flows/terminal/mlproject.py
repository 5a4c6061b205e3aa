"""MLproject, made from the option records: one entry point per flow, one parameter per option.

    PYTHONPATH=src python -m flows.terminal.mlproject > MLproject

A test holds the file to this text, so that a click option, a record's field and an MLproject parameter
have one name and one default.
"""

from __future__ import annotations

import dataclasses

import click

from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.options.compare import CompareConfig
from whisperbench.options.doctor import DoctorConfig
from whisperbench.options.record import Options, kind_of, text_of
from whisperbench.options.sweep import SweepConfig
from whisperbench.options.upload import UploadConfig

HEADER = """\
# One entry point per module of flows/.  Made by `make mlproject` from the option records in src/whisperbench.
name: whisperbench
conda_env: conda.yaml

entry_points:
"""

ENTRY_POINTS: dict[str, tuple[str, type[Options]]] = {
    "main": ("flows.benchmark", BenchmarkConfig),
    "sweep": ("flows.sweep", SweepConfig),
    "compare": ("flows.compare", CompareConfig),
    "upload": ("flows.upload", UploadConfig),
    "doctor": ("flows.doctor", DoctorConfig),
}


def project_file() -> str:
    return HEADER + "\n".join(entry_point(name, *found) for name, found in ENTRY_POINTS.items())


def entry_point(name: str, module: str, options: type[Options]) -> str:
    fields = dataclasses.fields(options)
    lines = [f"  {name}:", "    parameters:"]
    for field in fields:
        number = kind_of(field) in {int, float}
        default = text_of(field.default)
        lines.append(
            f"      {field.name}: {{type: {'float' if number else 'string'}, "
            f"default: {default if number else chr(34) + default + chr(34)}}}"
        )
    lines += ["    command: >-", f"      PYTHONPATH=src python -m {module}"]
    lines += [f"      --{field.name} {{{field.name}}}" for field in fields]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    click.echo(project_file(), nl=False)
