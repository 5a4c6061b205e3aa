"""Redaction and escaping: no secret or control sequence is printed, and ordinary text stays as it is."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from whisperbench.text import code_span, printable, redact, redact_file, shortened, without_password


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
def test_addresses(text: str, expected: str) -> None:
    """What stands before the host goes, what comes after it stays."""
    assert without_password(text) == expected


@pytest.mark.parametrize("token", ["hf_" + "a1" * 17, "ghp_" + "a1" * 18, "glpat-" + "a1" * 10, "AKIA" + "A1" * 8])
def test_tokens_are_recognised_by_their_form(token: str) -> None:
    """Also where no variable holds them."""
    assert redact(f"Bearer {token}.", {}) == "Bearer ***."


@pytest.mark.parametrize(
    "name", ["DB_PASS", "MYSQL_PWD", "PASS", "SLACK_WEBHOOK_URL", "AZURE_STORAGE_CONNECTION_STRING", "SENTRY_DSN"]
)
def test_names_of_secrets(name: str) -> None:
    """Short forms, webhooks and connection strings are secrets as well; a value like `true` is too short for one."""
    assert redact("it is abc/defgh!", {name: "abc/defgh"}) == "it is ***!"
    assert redact("true story", {name: "true"}) == "true story"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SSH_ASKPASS", "COMPASS", "PASSES", "TOKENIZERS_PARALLELISM"])
def test_names_that_only_look_like_secrets(name: str) -> None:
    """Directories, programs and tokenizers stay."""
    assert redact("in /home/ann", {name: "/home/ann"}) == "in /home/ann"


@pytest.mark.parametrize("value", ['p"ss\\w/rd', "p%40ss%2Fword", "pässw@rd", "line\nfeed", "it's me"])
@pytest.mark.parametrize("spell", [str, json.dumps, repr, urllib.parse.quote, urllib.parse.unquote])
def test_every_spelling_of_a_value(value: str, spell: Callable[[str], str], tmp_path: Path) -> None:
    """As it is, as JSON or Python quotes it, as an address spells it, and as it is read there."""
    spelled = spell(value)[1:-1] if spell in (json.dumps, repr) else spell(value)
    address = f"postgresql://ann:{urllib.parse.quote(value, safe='')}@db"
    for environment in ({"DB_PASS": value}, *([] if spell is urllib.parse.unquote else [{"STORE": address}])):
        assert redact(f"<{spelled}>", environment) == "<***>"
        (tmp_path / "engine.log").write_text(spelled, "utf-8")
        redact_file(tmp_path / "engine.log", environment)
        assert (tmp_path / "engine.log").read_text("utf-8") == "***"


def test_a_password_inside_a_variable_of_any_name() -> None:
    """Also where a program prints it by itself."""
    for value in ("Server=db;Pwd=geheimnis", "host=db password='geheimnis'", "https://h/?token=geheimnis"):
        assert redact("it is geheimnis", {"ODBC": value}) == "it is ***"


def test_a_file_of_any_bytes_to_which_a_process_still_writes(tmp_path: Path) -> None:
    """All but the secret is kept, and the redacted file does not change later."""
    path = tmp_path / "engine.log"
    with path.open("wb", buffering=0) as log:
        log.write(b"\xff\x00 " + "pässwörd".encode() + b" \r\n")
        redact_file(path, {"DB_PASSWORD": "pässwörd"})
        log.write(b"password=geheimnis")
    assert path.read_bytes() == b"\xff\x00 *** \r\n"
    assert [each.name for each in tmp_path.iterdir()] == ["engine.log"]


def test_control_characters_for_a_terminal() -> None:
    """They are escaped; lines stay lines."""
    assert printable("a\x1b[2J\rb\n\u202ec\x9b") == "a\\x1b[2J\\rb\n\\u202ec\\x9b"


@pytest.mark.parametrize("text", ["a `b` c", "``", "`x", "plain"])
def test_a_code_span_contains_its_text(text: str) -> None:
    """CommonMark: a span ends at the first run of as many backticks as it began with."""
    span = code_span(text)
    fence = span[: len(span) - len(span.lstrip("`"))] if not text.startswith("`") else span.partition(" ")[0]
    assert span.endswith(fence)
    assert fence not in text
    assert text in span


def test_the_end_of_a_long_message_is_kept() -> None:
    """It holds the cause."""
    text = "Max retries exceeded " + "x" * 10_000 + " Connection refused"
    assert len(shortened(text)) <= 600
    assert shortened(text).startswith("Max retries")
    assert shortened(text).endswith("Connection refused")
    assert shortened("short") == "short"
