"""Secrets in the environment and hostile text in the corpus: neither reaches a place where it does harm."""

from __future__ import annotations

import json
import re
import stat
import urllib.parse
from collections.abc import Callable
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
from tests.support.stores import fresh_store
from whisperbench.results.bundle import read_bundle
from whisperbench.text import redact, redact_file, without_password
from whisperbench.tracking.client import connect

pytestmark = pytest.mark.usefixtures("no_project_run")

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


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    address = fresh_store(tmp_path, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return connect(address)


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
    """It is stored as it is, shown as what it is, and executes nowhere."""
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
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>html" not in page
    for text in (page, result.output, held["artifacts"]["summary.md"].decode()):
        assert "\x1b" not in text
        assert "\0" not in text
    assert not Path("/tmp/owned").exists()  # noqa: S108 - what the text would have made


def test_what_is_doubtful_is_reported_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spreadsheet's file with a cell that nobody has filled: how it was read, and why the WER may be wrong."""
    put(tmp_path / "c", "a.wav", "b.wav")
    (tmp_path / "c" / "metadata.csv").write_text("File_Name;Text\na.wav;one\nb.wav;\n", "utf-8")
    said = run_benchmark(tmp_path, monkeypatch, corpus=str(tmp_path / "c"), offline="true").stderr
    assert "1 of 2 references are empty" in said.partition("starting vllm")[0]


def test_artifacts_stay_in_their_place(
    client: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No id or file name makes a file elsewhere."""
    result = run_benchmark(tmp_path, monkeypatch, corpus=str(corpus), split="all")
    assert result.exit_code == 0, result.stderr
    (bundle,) = (tmp_path / "results").iterdir()
    assert {path.name for path in read_bundle(bundle).artifacts.iterdir()} == {
        "transcripts.json", "summary.md", "environment.txt", "engine.log", "samples", "plots",
    }  # fmt: skip
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in bundle.rglob("*"))


@pytest.mark.parametrize("identifier", ["../../evil", "/etc/passwd", "a\nb", "a\0b", "\x1b[31m"])
def test_an_id_that_leaves_its_place(
    identifier: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is refused before anything is measured, and shown as what it is."""
    (corpus / "manifest.jsonl").write_text(
        "".join(
            json.dumps({"id": f"{identifier}{n}", "audio": f"{n}.wav", "text": "a"}) + "\n" for n in range(len(HOSTILE))
        )
    )
    result = run_benchmark(tmp_path, monkeypatch, corpus=str(corpus), split="all", offline="true")
    assert result.exit_code == 1
    assert re.search("is not allowed|leaves the corpus", result.stderr)
    assert not set("\x1b\0") & set(re.sub(r"\x1b\[\d*m", "", result.stderr))


@pytest.mark.parametrize("model", ["\x1b[31mred", "a\nb", "<script>", "../" * 20 + "etc", "x" * 5_000])
def test_a_hostile_model_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours, and nothing that a terminal obeys."""
    result = run_benchmark(tmp_path, monkeypatch, corpus="demo", model=model, offline="true")
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert "\x1b[31mred" not in result.stderr


def test_what_is_kept_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of the machine read no result."""
    assert run_benchmark(tmp_path, monkeypatch, corpus="demo", offline="true").exit_code == 0
    (bundle,) = (tmp_path / "results").iterdir()
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("https://ann:secret@host/x", "https://***@host/x"),
            ("https://token@host/x", "https://***@host/x"),
            ("postgresql+psycopg://ann:p@ss@host/db", "postgresql+psycopg://***@host/db"),
            ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
            ("https://host/x?access_token=abc", "https://host/x?access_token=***"),
            ("mail ann@example.org", "mail ann@example.org"),
            ("https://host/path@2x.png", "https://host/path@2x.png"),
            ("https://hooks.slack.com/services/T0/B0/x1", "https://hooks.slack.com/***"),
            ("https://discord.com/api/webhooks/12/ab-c", "https://discord.com/api/webhooks/***"),
            (
                "POST https://a.webhook.office.com/webhookb2/x/IncomingWebhook/y",
                "POST https://a.webhook.office.com/***",
            ),
            ("Server=db;Uid=ann;Pwd=geheim", "Server=db;Uid=ann;Pwd=***"),
            ("Server=db;User Id=ann;Password=a@b;Database=x", "Server=db;User Id=ann;Password=***"),
            ("host=db user=ann password='ge heim' dbname=x", "host=db user=ann password=*** dbname=x"),
            ("AccountName=x;AccountKey=ab+c/d==;EndpointSuffix=y", "AccountName=x;AccountKey=***;EndpointSuffix=y"),
            ('{"user": "ann", "password": "ge\\"heim", "x": 1}', '{"user": "ann", "password": ***, "x": 1}'),
            ("the password was wrong, pass it on", "the password was wrong, pass it on"),
            ("PWD=/home/ann", "PWD=/home/ann"),
            ("two https://a:b@c and https://d:e@f", "two https://***@c and https://***@f"),
        ],
    )
    def test_addresses(self, text: str, expected: str) -> None:
        """What stands before the host goes, what comes after it stays."""
        assert without_password(text) == expected

    @pytest.mark.parametrize("token", ["hf_" + "a1" * 17, "ghp_" + "a1" * 18, "glpat-" + "a1" * 10, "AKIA" + "A1" * 8])
    def test_tokens_that_tell_themselves(self, token: str) -> None:
        """Also where no variable holds them."""
        assert redact(f"Bearer {token}.", {}) == "Bearer ***."

    def test_short_values_are_words(self) -> None:
        """A variable that says `true` does not blot out the truth."""
        assert redact("true story", {"USE_TOKEN": "true"}) == "true story"

    def test_names_that_only_look_like_secrets(self) -> None:
        """Tokenizers are not tokens."""
        assert redact("parallel", {"TOKENIZERS_PARALLELISM": "parallel"}) == "parallel"

    @pytest.mark.parametrize(
        "name", ["DB_PASS", "MYSQL_PWD", "PASS", "SLACK_WEBHOOK_URL", "AZURE_STORAGE_CONNECTION_STRING", "SENTRY_DSN"]
    )
    def test_names_of_secrets(self, name: str) -> None:
        """Short forms, webhooks and connection strings are secrets as well."""
        assert redact("it is abc/defgh!", {name: "abc/defgh"}) == "it is ***!"

    @pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SSH_ASKPASS", "COMPASS", "PASSES"])
    def test_names_that_end_alike(self, name: str) -> None:
        """Directories and programs stay."""
        assert redact("in /home/ann", {name: "/home/ann"}) == "in /home/ann"

    @pytest.mark.parametrize("value", ['p"ss\\w/rd', "p%40ss%2Fword", "pässw@rd", "line\nfeed", "it's me"])
    @pytest.mark.parametrize("spell", [str, json.dumps, repr, urllib.parse.quote, urllib.parse.unquote])
    def test_every_spelling_of_a_value(self, value: str, spell: Callable[[str], str], tmp_path: Path) -> None:
        """As it is, as JSON or Python quotes it, as an address spells it, and as it is read there."""
        spelled = spell(value)[1:-1] if spell in (json.dumps, repr) else spell(value)
        address = f"postgresql://ann:{urllib.parse.quote(value, safe='')}@db"
        for environment in ({"DB_PASS": value}, *([] if spell is urllib.parse.unquote else [{"STORE": address}])):
            assert redact(f"<{spelled}>", environment) == "<***>"
            (tmp_path / "engine.log").write_text(spelled, "utf-8")
            redact_file(tmp_path / "engine.log", environment)
            assert (tmp_path / "engine.log").read_text("utf-8") == "***"

    def test_a_password_inside_a_variable_of_any_name(self) -> None:
        """Also where a program prints it by itself."""
        for value in ("Server=db;Pwd=geheimnis", "host=db password='geheimnis'", "https://h/?token=geheimnis"):
            assert redact("it is geheimnis", {"ODBC": value}) == "it is ***"

    def test_a_file_of_any_bytes(self, tmp_path: Path) -> None:
        """Stays as it is but for the secret, also one that is not ASCII."""
        path = tmp_path / "engine.log"
        path.write_bytes(b"\xff\x00 " + "pässwörd".encode() + b" \r\n")
        redact_file(path, {"DB_PASSWORD": "pässwörd"})
        assert path.read_bytes() == b"\xff\x00 *** \r\n"
