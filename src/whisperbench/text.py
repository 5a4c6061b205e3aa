"""Text that others wrote, fit to be shown or kept: visible, and without passwords, tokens and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

JOINERS = "\u200c\u200d"  # unprintable by Unicode's book, but part of Persian, Indic and emoji spelling

HIDDEN = "***"
SHORTEST_SECRET = 6  # a shorter value would blot out ordinary words

SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|PASSW|PASSPHRASE|SECRET|CREDENTIAL|WEBHOOK|CONN(ECTION)?_?STR|(API|ACCESS|PRIVATE)_?KEY|"
    r"_(KEY|PAT|PASS|PWD|PW|AUTH|DSN)$|^PGPASS$|^PASS$",
    re.IGNORECASE,
)
IN_ADDRESS = re.compile(r"(?<=://)[^/\s'\"<>]*@")
IN_QUERY = re.compile(
    r"(?<=[?&;])((?:access_?|auth_?|api_?)?(?:token|key|password|passwd|secret|sig))=[^&\s'\"#]+", re.IGNORECASE
)
KNOWN_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|AKIA[A-Z0-9]{12,})"
)
"""Tokens that tell themselves: Hugging Face, GitHub, GitLab, AWS."""


def visible(text: str) -> str:
    """`text` with everything that is not to be seen spelled out: `\\x1b`, `\\n`, `\\u202e`, `\\ud800`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text)


def without_password(text: str) -> str:
    """`https://user:secret@host?token=abc` as `https://***@host?token=***`, anywhere in a text."""
    return IN_QUERY.sub(rf"\1={HIDDEN}", IN_ADDRESS.sub(f"{HIDDEN}@", text))


def redact(text: str, environment: Mapping[str, str]) -> str:
    """`text` without the values of secret variables, passwords in addresses, and tokens of known shapes."""
    for secret in _secrets(environment):
        text = text.replace(secret, HIDDEN)
    return KNOWN_SHAPES.sub(HIDDEN, without_password(text))


def redact_file(path: Path, environment: Mapping[str, str]) -> None:
    """The same for a text file, in place; a file that does not exist stays away."""
    if path.exists():
        # Latin-1 takes any bytes there and back; a secret that is not ASCII is looked for in its UTF-8 spelling.
        spelled = {
            name: value.encode("utf-8", "surrogateescape").decode("latin-1") for name, value in environment.items()
        }
        path.write_bytes(redact(path.read_bytes().decode("latin-1"), spelled).encode("latin-1"))


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Values to hide, the longest first: those of secret names, and passwords inside addresses."""
    found = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    for value in environment.values():
        for credentials in IN_ADDRESS.findall(value):
            found.add(credentials.rstrip("@").partition(":")[2])
    return sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True)
