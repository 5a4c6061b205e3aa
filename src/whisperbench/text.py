"""Escaping of untrusted text for display, and redaction of passwords, tokens and keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

JOINERS = "\u200c\u200d"  # not printable in Python's terms, but needed in Persian and Indic scripts and in emoji

HIDDEN = "***"
MIN_SECRET_LENGTH = 6  # shorter values are part of ordinary words

SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|PASSW|PASSPHRASE|SECRET|CREDENTIAL|WEBHOOK|CONN(ECTION)?_?STR|(API|ACCESS|PRIVATE)_?KEY|"
    r"_(KEY|PAT|PASS|PWD|PW|AUTH|DSN)$|^PASS$",  # the variable PWD is the working directory
    re.IGNORECASE,
)
IN_ADDRESS = re.compile(r"(?<=://)[^/\s'\"<>]*@")
IN_QUERY = re.compile(
    r"(?<=[?&;])((?:access_?|auth_?|api_?)?(?:token|key|password|passwd|pwd|secret|sig)=)([^&\s'\"#]+)", re.IGNORECASE
)
BY_NAME = re.compile(
    r"""\b((?:password|passwd|account_?key|shared_?access_?key)["']?\s*[=:]\s*)"""
    r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s;&,'"]+)""",
    re.IGNORECASE,
)
"""`Password=…` in a connection string, `"password": "…"` in JSON."""
HOOK = re.compile(r"(https?://[^\s'\"<>]{,200}?hooks?[^\s/'\"<>]{,100}/)[^\s'\"<>]+", re.IGNORECASE)
"""Webhooks, whose path is the secret: hooks.slack.com/services/…, discord.com/api/webhooks/…"""
KNOWN_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|AKIA[A-Z0-9]{12,})"
)
"""Tokens with a known prefix: Hugging Face, GitHub, GitLab, AWS."""


def escape_control(text: str) -> str:
    """`text` with unprintable characters as escapes like `\\x1b`, `\\n`, `\\u202e` and `\\ud800`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text)


def printable(text: str) -> str:
    """`escape_control` for each line of a text.  Everything that is printed on a terminal passes through it."""
    return "\n".join(map(escape_control, text.split("\n")))


def shortened(text: object, length: int = 600) -> str:
    """The text, or its start and end in `length` characters, because the cause of an error is often at its end."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[: length // 3]} … {whole[3 - length * 2 // 3 :]}"


def code_span(text: str) -> str:
    """Escape text as a code span of markdown, in more backticks than it contains in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{escape_control(text)}{fence}" if len(fence) == 1 else f"{fence} {escape_control(text)} {fence}"


def markdown(text: str) -> str:
    """Escape text for one line of markdown or a table cell, without markup, HTML and control characters."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", escape_control(text).replace("&", "&amp;").replace("<", "&lt;"))


def clock(seconds: float) -> str:
    """Format a duration in seconds: 61 as `1:01`, 3661 as `1:01:01`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def without_password(text: str) -> str:
    """Redact addresses, webhooks and connection strings: `https://user:secret@host` becomes `https://***@host`."""
    text = HOOK.sub(rf"\1{HIDDEN}", IN_ADDRESS.sub(f"{HIDDEN}@", text))
    return BY_NAME.sub(rf"\1{HIDDEN}", IN_QUERY.sub(rf"\1{HIDDEN}", text))


def redact(text: str, environment: Mapping[str, str]) -> str:
    """Redact the values of secret environment variables, passwords in addresses, and tokens of known services."""
    for secret in _secrets(environment):
        text = text.replace(secret, HIDDEN)
    return KNOWN_SHAPES.sub(HIDDEN, without_password(text))


def redact_file(path: Path, environment: Mapping[str, str]) -> None:
    """Replace a text file, if it exists, by a new file with its redacted text.

    A process that still writes to the old file, for example Python's resource tracker, cannot add text to the new one.
    """
    if path.exists():
        text = path.read_bytes().decode("utf-8", "surrogateescape")  # preserves any bytes
        redacted = path.with_name(f".{path.name}.redacted")
        redacted.write_bytes(redact(text, environment).encode("utf-8", "surrogateescape"))
        redacted.replace(path)


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Values of variables with secret names and passwords in all values, in all spellings, the longest first."""
    found = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    for value in environment.values():
        found.update(credentials.rstrip("@").partition(":")[2] for credentials in IN_ADDRESS.findall(value))
        found.update(match[2].strip("'\"") for pattern in (IN_QUERY, BY_NAME) for match in pattern.finditer(value))
    spellings = {spelling for value in found for spelling in _spellings(value)}
    return sorted((value for value in spellings if len(value) >= MIN_SECRET_LENGTH), key=len, reverse=True)


def _spellings(value: str) -> Iterator[str]:
    """A value as it is and URL-decoded, each in the escaping of Python, JSON and URLs."""
    for plain in (value, unquote(value)):
        yield from (plain, repr(plain)[1:-1], json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1])
        yield from (quote(plain, safe=safe, errors="surrogateescape") for safe in ("", "/"))
