"""Bundles and journals with arbitrary content are read or refused with a BundleError."""

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
from whisperbench.results.bundle import BUNDLE_FILE, Origin, read_bundle
from whisperbench.results.recording import TRANSCRIPTS, read_journal

FUZZED = settings(max_examples=300, deadline=None)
GOOD_LINE = json.dumps(dataclasses.asdict(result(0))).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of a bundle, and the content of its bundle.json."""
    origin = Origin("speech", "0" * 32, {"mlflow.user": "ann"})
    bundle = result_in(tmp_path_factory.mktemp("fuzz"), contents_of(), origin)
    return bundle.directory, json.loads((bundle.directory / BUNDLE_FILE).read_text())


def paths_of(body: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value below its root."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, inner in items:
        yield (*prefix, name)
        yield from paths_of(inner, (*prefix, name))


@FUZZED
@given(data=st.data())
def test_any_bundle(written: tuple[Path, Any], data: st.DataObject) -> None:
    """Another value in one place, a text that is cut short, or any bytes."""
    directory, body = written
    *parents, last = data.draw(st.sampled_from(sorted(paths_of(body), key=str)))
    spoiled = copy.deepcopy(body)
    place = spoiled
    for name in parents:
        place = place[name]
    place[last] = data.draw(JSON)
    text = json.dumps(spoiled).encode()
    cut = st.integers(0, len(text)).map(lambda length: text[:length])
    (directory / BUNDLE_FILE).write_bytes(data.draw(st.just(text) | cut | st.binary()))
    try:
        bundle = read_bundle(directory)
    except BundleError:
        return
    assert all(isinstance(value, str) for value in bundle.contents.params.values())


@FUZZED
@given(lines=st.lists(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | st.just(GOOD_LINE)))
def test_any_journal(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Only complete lines of results are read."""
    directory = tmp_path_factory.getbasetemp() / "any.partial"
    directory.mkdir(exist_ok=True)
    (directory / TRANSCRIPTS).write_bytes(b"\n".join(lines))
    try:
        found = read_journal(directory)
    except BundleError:
        return
    assert set(found) <= {result(0)}
