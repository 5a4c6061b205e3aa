"""Text becomes an option's value, or is refused."""

from __future__ import annotations

import pytest

from whisperbench.config.option import parse
from whisperbench.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [("yes", bool, "true or false"), ("12.5", int, "a whole number"), ("many", float, "a number")],
)
def test_text_that_is_not_of_the_kind(text: str, kind: type, said: str) -> None:
    """Parsing says which option and what was expected."""
    with pytest.raises(ConfigError, match=said):
        parse(text, kind, "option")
    assert parse("TRUE", bool, "option") is True
