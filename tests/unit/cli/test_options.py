"""Commands made from records: parsing, help, and errors as exit statuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from whisperbench.cli.options import command
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ComparisonError, EngineError, TrackingError
from whisperbench.processes.signals import Interrupted


def run(*words: str) -> tuple[Result, list[BenchmarkConfig]]:
    found: list[BenchmarkConfig] = []
    return CliRunner().invoke(command(BenchmarkConfig, "Measure.")(found.append), words), found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max-num-seqs 256", BenchmarkConfig(max_num_seqs=256)),
        ("--max_num_seqs=256", BenchmarkConfig(max_num_seqs=256)),
        ("--offline --limit 8", BenchmarkConfig(offline=True, limit=8)),
        ("--offline=true", BenchmarkConfig(offline=True)),
        ("--offline false --limit all", BenchmarkConfig()),
    ],
)
def test_words_become_a_record(words: str, expected: BenchmarkConfig) -> None:
    """Hyphens and underscores are equivalent; a Boolean option without a value means true."""
    result, found = run(*words.split())
    assert result.exit_code == 0, result.output
    assert found == [expected]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-num-seqs many", "error: max_num_seqs='many' is not allowed: expected a whole number."),
        ("--front_end stock", "No such option"),
        ("--padding-stride 4 --engine vllm-stock", "padding_stride=4 applies only to engine=vllm."),
    ],
)
def test_wrong_usage_is_status_2(words: str, message: str) -> None:
    """The error is one sentence without a traceback."""
    result, found = run(*words.split())
    assert (result.exit_code, found) == (2, [])
    assert message in result.output
    assert "Traceback" not in result.output


def raising(error: BaseException) -> Callable[[BenchmarkConfig], None]:
    def function(_: BenchmarkConfig) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (EngineError("It failed."), 1, "error: It failed."),
        (ComparisonError("They differ."), 2, "error: They differ."),
        (TrackingError("No server."), 3, "error: No server."),
        (KeyError("x"), 70, "error: unexpected KeyError: 'x'."),
        (PermissionError(13, "Permission denied", "/x\x1b"), 2, "error: /x\\x1b cannot be used (Permission denied)."),
        (OSError(28, "No space left on device"), 70, "error: unexpected OSError"),
        (FileNotFoundError(2, "No such file", b"/x"), 70, "error: unexpected FileNotFoundError"),
        (Interrupted(15), 143, "stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
    ],
)
def test_errors_become_exit_statuses(error: BaseException, status: int, message: str) -> None:
    """Status 1 is a failure or a regression; a defect ends with 70."""
    result = CliRunner().invoke(command(BenchmarkConfig, "Measure.")(raising(error)), [])
    assert result.exit_code == status
    assert message in result.stderr
    assert ("Traceback" in result.stderr) == (status == 70)


def test_messages_hide_secrets_and_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and control characters in a message are replaced."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cr3t-value")
    main = command(BenchmarkConfig, "Measure.")(raising(EngineError("s3cr3t-value \x1b]0;title")))
    assert CliRunner().invoke(main, []).stderr == "error: *** \\x1b]0;title\n"


def test_help_is_grouped() -> None:
    """The most used options first, then the groups; hyphens only; defaults, engines and choices are shown."""
    text = run("--help")[0].output
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    groups = ("Most used", "Model", "Data", "Engine", "Measurement", "Several GPUs", "Output", "Help")
    assert headings == [f"{group}:" for group in groups]
    words = " ".join(text.split())
    assert "--max-num-seqs N Maximum number of sequences" in words
    assert "(vLLM's max_num_seqs). (vllm, vllm-stock) [default: 128]" in words
    assert "--offline [true|false]" in words
    assert (text.count("--max-num-seqs "), text.count("--max_num_seqs")) == (1, 0)
    text = CliRunner().invoke(command(SweepConfig, "Sweep.")(lambda _: None), ["--help"]).output
    for takes_list in ("--max-num-seqs N,…", "--repeats N ", "--seed N ", "--kv-cache-dtype auto|fp8,…"):
        assert takes_list in text
