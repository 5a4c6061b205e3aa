"""Results that an earlier version left on disk and on a server: read, uploaded and compared by this one."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import held_by
from whisperbench.compare.groups import Grouping
from whisperbench.compare.leaderboard import rank
from whisperbench.compare.paired_tests import paired_test
from whisperbench.measure.joint_bootstrap import PairedTest
from whisperbench.results.bundle import CONTENTS, Bundle, read_bundle
from whisperbench.results.journal import TRANSCRIPTS, abandoned, read_partial
from whisperbench.tracking import read as runs
from whisperbench.tracking.connection import connect
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")

OLD = Path(__file__).parents[1] / "results" / "old"
BUNDLE = OLD / "20261124T172237-47599332d3752f8c-c26c0cc9"
PARTIAL = OLD / "20261124T172331-c5e1901d3d8fe2f2-3743c239.partial"
SLOWER, FASTER = "a9867a7acc0641038f8ad77ce7d6726c", "c3bb8f99f99049c69abe0c83e1a89148"
KEY = "dataset=61e54b7c7a68e8e17020ff891b247b4a|limit=3|normalizer=whisper-english/0.1.15|language=en|long_audio=split"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy, which an upload may mark."""
    shutil.copytree(BUNDLE, tmp_path / BUNDLE.name)
    return read_bundle(tmp_path / BUNDLE.name)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """A client of the earlier version's store."""
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as database, database:
        database.executescript((OLD / "store.sql").read_text(encoding="utf-8"))
        database.execute("UPDATE experiments SET artifact_location = ?", (str(tmp_path / "artifacts"),))
        for run_id in (SLOWER, FASTER):
            place = str(OLD / "artifacts" / run_id)
            database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (place, run_id))
    return connect(f"sqlite:///{tmp_path / 'store.db'}")


def test_a_bundle_is_read(bundle: Bundle) -> None:
    """Every value that bundle.json holds, no more and no less."""
    body = json.loads((BUNDLE / CONTENTS).read_text(encoding="utf-8"))
    read, written = bundle.contents, body["contents"]
    assert bundle.id == body["id"] == BUNDLE.name
    assert {name: getattr(read, name) for name in written if name != "dataset"} == {
        name: value for name, value in written.items() if name != "dataset"
    }
    assert {name: getattr(read.dataset, name) for name in written["dataset"]} == written["dataset"]
    assert bundle.origin.tags == body["origin"]["tags"]
    assert (read.metrics["wer"], len(read.history["reqs_per_sec"])) == (93.75, 2)


def test_a_bundle_is_uploaded(client: Any, bundle: Bundle, tmp_path: Path) -> None:
    """The run holds what the bundle holds."""
    run_id, was_missing = upload_bundle(client, bundle)
    assert was_missing
    found = held_by(client, run_id, tmp_path / "download")
    assert (found["name"], found["status"]) == ("demo-auto-64", "FINISHED")
    assert found["params"] == bundle.contents.params
    assert found["last metrics"] == bundle.contents.metrics
    assert bundle.contents.tags.items() <= found["tags"].items()
    assert found["tags"]["whisperbench.accuracy_key"] == KEY
    assert set(found["artifacts"]) == {"engine.log", "environment.txt", "summary.md", "transcripts.json"}


def test_what_was_cut_off_is_found_again(tmp_path: Path) -> None:
    """One line of transcripts.jsonl is one transcript; its process is dead on its own host only."""
    partial = read_partial(PARTIAL)
    lines = [json.loads(line) for line in (PARTIAL / TRANSCRIPTS).read_text(encoding="utf-8").splitlines()]
    assert [(repeat, t.utt_id, t.hypothesis, t.seconds) for repeat, t in partial.transcripts] == [
        (line["repeat"], line["utt_id"], line["hypothesis"], line["seconds"]) for line in lines
    ]
    assert [repeat for repeat, _ in partial.transcripts] == [0, 0, 0, 1]
    assert partial.process is not None
    assert (partial.process.host, partial.run_id) == ("bench", None)
    shutil.copytree(PARTIAL, tmp_path / PARTIAL.name)
    assert abandoned(tmp_path) == []


def test_runs_of_a_store_are_read(store: Any) -> None:
    """Names, keys, figures and the rates of both repeats."""
    found = {run.run_id: run for run in runs.find_runs(store, None, None)}
    assert found.keys() == {SLOWER, FASTER}
    run = found[FASTER]
    assert (run.name, run.user, run.experiment, run.gpu) == ("demo-auto-128", "ann", "Default", "AMD EPYC")
    assert run.start_time == datetime.datetime(2026, 11, 24, 17, 23, 13, 705_000, datetime.UTC)
    assert (run.accuracy_key, run.config_digest, run.random_weights) == (KEY, "c5e1901d3d8fe2f2", False)
    assert [round(value, 2) for value in run.values("reqs_per_sec")] == [279.27, 400.89]
    assert run.metric("wer") == 93.75


def test_runs_of_a_store_are_compared(store: Any, tmp_path: Path) -> None:
    """On one leaderboard, by their errors and by their rates; their transcripts are tested in pairs."""
    grouping = Grouping.of(runs.find_runs(store, None, None), "wer")
    (group,) = grouping.groups
    assert grouping.left_out == ()
    rows = {row.system.newest.run_id: row for row in rank(group, "wer", {}).rows}
    assert {run_id: (row.rank, row.system.wer) for run_id, row in rows.items()} == {
        SLOWER: (1, 93.75),
        FASTER: (1, 93.75),
    }
    assert rows[FASTER].system.median("reqs_per_sec") == pytest.approx(340.08, abs=0.01)
    transcripts = runs.read_transcripts(store, (SLOWER, FASTER), tmp_path / "cache")
    test = paired_test(transcripts[SLOWER], transcripts[FASTER], seed=1)
    assert isinstance(test, PairedTest)
    assert test.difference == 0


def test_an_uploaded_bundle_is_compared_with_the_runs_of_a_store(store: Any, bundle: Bundle) -> None:
    """They share their keys: three rows of one board."""
    upload_bundle(store, bundle)
    (group,) = Grouping.of(runs.find_runs(store, None, None), "wer").groups
    assert sorted(c.param("max_num_seqs") or "" for c in group.systems) == ["128", "256", "64"]
