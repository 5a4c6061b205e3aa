"""A result on disk: complete or absent, what was finished is kept, and no file makes the reader crash."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bundles import contents_of, result, result_in
from whisperbench.errors import BundleError
from whisperbench.results.bundle import ARTIFACTS, BUNDLE_FILE, Origin, read_bundle
from whisperbench.results.recording import TRANSCRIPTS, read_journal

FUZZED = 300
"""Inputs per fuzz test in the suite; 10,000 each were run by hand."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle to spoil, and what its bundle.json holds."""
    bundle = result_in(
        tmp_path_factory.mktemp("fuzz"), contents_of(), Origin("speech", "0" * 32, {"mlflow.user": "ann"})
    )
    return bundle.directory, json.loads((bundle.directory / BUNDLE_FILE).read_text())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


GOOD_LINE = json.dumps(dataclasses.asdict(result(0))).encode()


def paths_of(body: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield prefix
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, inner in items:
        yield from paths_of(inner, (*prefix, name))


def spoiled(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    body = copy.deepcopy(body)
    place = body
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return body


class TestFuzz:
    """No crash other than the project's own error."""

    @settings(max_examples=FUZZED, deadline=None)
    @given(data=st.data())
    def test_any_value_in_any_place(self, written: tuple[Path, Any], data: st.DataObject) -> None:
        """One place of a good bundle holds something else."""
        directory, body = written
        path = data.draw(st.sampled_from(sorted(paths_of(body), key=str)))
        text = json.dumps(spoiled(body, path, data.draw(JSON)))
        self.reads_or_refuses(directory, text.encode())

    @settings(max_examples=FUZZED, deadline=None)
    @given(data=st.data())
    def test_any_bytes(self, written: tuple[Path, Any], data: st.DataObject) -> None:
        """Bytes that are no bundle, and good ones cut or with a few bytes exchanged."""
        directory, body = written
        good = json.dumps(body).encode()
        cut = data.draw(st.integers(0, len(good)))
        self.reads_or_refuses(
            directory, data.draw(st.binary() | st.just(good[:cut]) | st.just(good[:cut] + b"\0" + good[cut:]))
        )

    @settings(max_examples=FUZZED, deadline=None)
    @given(
        facts=st.just({"schema": "1", "id": "x", "process": "", "run_id": None, "params": {}}) | JSON,
        lines=st.lists(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | st.just(GOOD_LINE)),
    )
    def test_any_journal(self, tmp_path_factory: pytest.TempPathFactory, facts: Any, lines: list[bytes]) -> None:
        """Nor of what a measurement that was cut off left."""
        directory = tmp_path_factory.getbasetemp() / "any.partial"
        directory.mkdir(exist_ok=True)
        (directory / "journal.json").write_text(json.dumps(facts))
        (directory / TRANSCRIPTS).write_bytes(b"\n".join(lines))
        try:
            found = read_journal(directory)
        except BundleError:
            return
        assert set(found) <= {result(0)}

    @staticmethod
    def reads_or_refuses(directory: Path, content: bytes) -> None:
        (directory / BUNDLE_FILE).write_bytes(content)
        try:
            bundle = read_bundle(directory)
        except BundleError:
            return
        assert all(isinstance(value, str) for value in bundle.contents.params.values())
        assert (directory / ARTIFACTS).is_dir()
