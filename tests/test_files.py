"""Where the cache of a user is."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisperbench.files import cache_directory


def test_the_cache_is_under_the_home_or_where_the_desktop_standard_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME is that of the moment, and XDG_CACHE_HOME comes before it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / "home" / ".cache" / "whisperbench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_directory() == tmp_path / "elsewhere" / "whisperbench"
