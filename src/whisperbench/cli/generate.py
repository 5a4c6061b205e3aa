"""MLproject and the tables of flows/README.md, made from the option records: an entry point per flow, a parameter and a
row per option.

    PYTHONPATH=src python -m whisperbench.cli.generate

A test holds the files to this text, so that a click option, a record's field, an MLproject parameter and a row
have one name and one default.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import CompareConfig, DoctorConfig, UploadConfig
from whisperbench.config.option import NON_EMPTY, Options, kind_of, text_of
from whisperbench.config.sweep import SweepConfig

PROJECT = Path(__file__).resolve().parents[3]
PAGE = PROJECT / "flows" / "README.md"
TABLE = re.compile(r"(<!-- make mlproject: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
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


def options_page(page: str) -> str:
    """The page with its tables as the option records have them; what people wrote around them stays."""
    return TABLE.sub(lambda found: found[1] + table(ENTRY_POINTS[found[2]][1]) + found[3], page)


def table(options: type[Options]) -> str:
    rows = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(options):
        rule = field.metadata["rule"]
        allowed = "" if rule is NON_EMPTY else rule.text
        cells = (f"`{field.name}`", text_of(field.default), allowed, field.metadata["help"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    (PROJECT / "MLproject").write_text(project_file(), encoding="utf-8")
    PAGE.write_text(options_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
