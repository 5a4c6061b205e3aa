"""Secrets in the environment and hostile text in the corpus: neither reaches a place where it does harm."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.support import fake_benchmark
from tests.support.bundles import held_by
from tests.support.corpora import put
from tests.support.fakes import FakeEngine
from whisperbench.results.bundle import read_bundle

SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz",
    "MLFLOW_TRACKING_PASSWORD": "tracking-pa55word",
    "MLFLOW_TRACKING_USERNAME": "ann",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+access",
    "PIP_INDEX_URL": "https://ann:index-pa55word@packages.example/simple",
    "MY_API_KEY": "sk-1234567890",
}
HIDDEN = ("hf_abcdefghijklmnopqrstuvwxyz", "tracking-pa55word", "aws/secret+access", "index-pa55word", "sk-1234567890")

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "escapes": "\x1b]0;owned\x07\x1b[2J red \x1b[31m text",
    "nul": "a\0b",
    "formats": "{x} %s ${HOME} $(touch /tmp/owned) `id`",
    "right to left": "\u202egpj.exe",
    "half": "a \ufffd b",
    "long": "word " * 200_000,
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """An audio folder whose transcripts are hostile."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for number, (name, text) in enumerate(HOSTILE.items()):
            file = f"{number}.wav"
            soundfile.write(folder / file, np.full(8_000, 0.01 * number, dtype=np.float32), 16_000)
            line = {"id": f"<b>{name}</b> & \"'", "audio": file, "text": text}
            manifest.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture(autouse=True)
def secrets(no_project_run: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


class TalkativeEngine(FakeEngine):
    """An engine whose log quotes its environment, as libraries do when they fail to download."""

    def __init__(self, settings: Any, hardware: Any, log: Path) -> None:
        super().__init__(settings, hardware, log)
        log.write_text("\n".join([f"{name}={value}" for name, value in SECRETS.items()]) + "\nengine ready\n")


def run_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: str) -> Result:
    monkeypatch.setattr(fake_benchmark, "FakeEngine", TalkativeEngine)
    arguments = {"model": "demo", "results_dir": str(tmp_path / "results"), **options}
    return CliRunner().invoke(fake_benchmark.main, [w for name, v in arguments.items() for w in (f"--{name}", v)])


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_no_secret_leaves_the_environment(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No param, tag, artifact, bundle or line of output holds one, though the engine's log did."""
    result = run_benchmark(tmp_path, monkeypatch, corpus="demo")
    assert result.exit_code == 0, result.stderr
    (run,) = client.search_runs(["0"])
    held = held_by(client, run.info.run_id, tmp_path / "download")
    assert b"engine ready" in held["artifacts"]["engine.log"]
    assert b"HF_TOKEN=***" in held["artifacts"]["engine.log"]
    kept = everything_in(tmp_path / "results").decode("utf-8", "replace")
    for secret in HIDDEN:
        assert secret not in str(held)
        assert secret not in kept
        assert secret not in result.output


def test_hostile_text_stays_text(client: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored unchanged, shown escaped, executes nowhere, and names no file; a description is markdown."""
    corpus = corpus.rename(tmp_path / "`**x**` [a](b)")
    result = run_benchmark(tmp_path, monkeypatch, corpus=str(corpus), split="all")
    assert result.exit_code == 0, result.stderr
    (run,) = client.search_runs(["0"])
    held = held_by(client, run.info.run_id, tmp_path / "download")
    table = json.loads(held["artifacts"]["transcripts.json"])
    references = {}
    for row in table["data"]:
        name = re.fullmatch(r"<b>(.*)</b> & \"'", row[0])
        assert name is not None
        references[name[1]] = row[table["columns"].index("reference")]
    assert references == HOSTILE
    page = held["artifacts"]["samples/samples.html"].decode()
    for tag in ("<script>alert", "<img src=x", "<b>html"):
        assert tag not in page
    for text in (page, result.output, held["artifacts"]["summary.md"].decode()):
        assert not {"\x1b", "\0"} & set(text)
    assert not Path("/tmp/owned").exists()  # noqa: S108 - what the text would have made
    command = re.search("Command: (`+) (.*) (`+)", run.data.tags["mlflow.note.content"])
    assert command is not None
    assert (command[1], command[3]) == ("``", "``")
    assert "corpus=" in command[2]
    (bundle,) = (tmp_path / "results").iterdir()
    assert {path.name for path in read_bundle(bundle).artifacts.iterdir()} == {
        "transcripts.json", "summary.md", "config.json", "environment.txt", "engine.log", "samples",
    }  # fmt: skip
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in bundle.rglob("*"))


def test_two_benchmarks_of_one_job(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AzureML sets MLFLOW_RUN_ID for a job: the second benchmark is refused before its engine starts."""
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert run_benchmark(tmp_path, monkeypatch, corpus="demo").exit_code == 0
    before = held_by(client, run_id, tmp_path / "before")
    refused = run_benchmark(tmp_path, monkeypatch, corpus="demo", limit="2")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "Unset MLFLOW_RUN_ID" in refused.stderr
    assert "starting" not in refused.stderr
    assert held_by(client, run_id, tmp_path / "after") == before


def test_doubts_about_the_corpus_are_printed_before_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spreadsheet's file with an empty cell: the reason why the WER may be wrong."""
    put(tmp_path / "c", "a.wav", "b.wav")
    (tmp_path / "c" / "metadata.csv").write_text("File_Name;Text\na.wav;one\nb.wav;\n", "utf-8")
    said = run_benchmark(tmp_path, monkeypatch, corpus=str(tmp_path / "c"), offline="true").stderr
    assert "1 of 2 references are empty" in said.partition("starting vllm")[0]


@pytest.mark.parametrize(
    ("identifier", "model", "message"),
    [
        ("../../evil", "demo", "leaves the corpus"),
        ("\x1b[31m\0", "demo", "is not allowed"),
        ("a", "\x1b[31mred\n<script>", "is not allowed"),
    ],
)
def test_a_hostile_id_or_model_is_refused(
    identifier: str, model: str, message: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is measured, and printed with its control characters escaped."""
    lines = [{"id": f"{identifier}{n}", "audio": f"{n}.wav", "text": "a"} for n in range(len(HOSTILE))]
    (corpus / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run_benchmark(tmp_path, monkeypatch, corpus=str(corpus), split="all", model=model, offline="true")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not {"\x1b", "\0"} & set(result.stderr)
