"""Load of the machine: which command is a benchmark, and which load disturbs one."""

from __future__ import annotations

import pytest

from whisperbench.measure.load import MachineLoad, is_benchmark


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/env/bin/python /env/bin/whisperbench benchmark --model demo", True),
        ("python -m whisperbench benchmark", True),
        ("python -m flows.benchmark --model demo", True),
        ("timeout 60 whisperbench benchmark", True),
        ("whisperbench sweep --model demo", False),
        ("python -m flows.compare", False),
        ("vim whisperbench/benchmark.py", False),
        ("", False),
    ],
)
def test_a_benchmark_is_recognised_by_its_command_line(words: str, expected: bool) -> None:
    """As a console script, a module, an entry point of `mlflow run`, or behind a wrapper."""
    assert is_benchmark(words.split()) is expected


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (MachineLoad(2, 1.9, 0.05), None),
        (MachineLoad(2, 1.5, 0.5), "other programs used 25 % of the 2 cores"),
        (MachineLoad(16, 3.0, 8.0), None),  # five cores are idle
        (MachineLoad(16, 3.0, 13.0), "other programs used 81 % of the 16 cores"),
        (MachineLoad(16, 3.0, 0.1, benchmark=True), "another benchmark ran on this host"),
    ],
)
def test_other_programs_disturb_where_the_cores_are_busy(load: MachineLoad, reason: str | None) -> None:
    """A program on a core that would be idle takes nothing from the benchmark."""
    assert load.disturbance == reason
