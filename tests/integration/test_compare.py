"""The compare command against real MLflow stores and a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.bundles import held_by
from tests.support.commands import invoke
from tests.support.servers import Server
from tests.support.stores import H100, log, run_of, spoken, table_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ConfigError
from whisperbench.results.names import COMMIT, REPEATS
from whisperbench.tracking import read as runs
from whisperbench.tracking.client import connect
from whisperbench.tracking.read import read_samples
from whisperbench.tracking.runs import BUNDLE_TAG

LARGE, TURBO, BASE = (BenchmarkConfig(model=model) for model in ("large-v3", "large-v3-turbo", "base"))
FILES = {"leaderboard.md", "leaderboard.csv", "leaderboard.json", "leaderboard.html", "pareto.svg"}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_project_run: None) -> Path:
    """Where the command works: its results and its cache are there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(**options: str) -> Result:
    return invoke("compare", **options)


def fetched(directory: Path) -> set[str]:
    return {path.stem for path in (directory / "whisperbench" / "transcripts").glob("*/*.json")}


def hold_clip(client: Any, run_id: str, directory: Path, name: str, size: int = 4) -> None:
    (directory / name).write_bytes(b"RIFF".ljust(size, b"."))
    client.log_artifact(run_id, str(directory / name), "samples")


class TestLeaderboards:
    def test_every_file_is_written_and_logged(self, client: Any, directory: Path) -> None:
        """The short answer or everything on stdout, five files in results_dir and as artifacts of a compare run."""
        for config, wer in ((LARGE, 2.0), (TURBO, 2.1)):
            log(client, run_of(config, wer=wer), spoken([1] * 40))
        result = compare(full="true")
        assert result.exit_code == 0, result.stderr
        assert {path.name for path in (directory / "results").iterdir()} == FILES
        assert result.stdout.strip() == (directory / "results" / "leaderboard.md").read_text().strip()
        assert result.stdout.startswith(compare().stdout.partition("Accuracy is compared")[0])
        assert not client.search_runs(["0"], "tags.`whisperbench.kind` = 'compare'"), "not among what is compared"
        own = client.get_experiment_by_name("whisperbench-compare").experiment_id
        found = client.search_runs([own], "tags.`whisperbench.kind` = 'compare'")
        assert [run.info.status for run in found] == ["FINISHED"] * 2
        assert {artifact.path for artifact in client.list_artifacts(found[0].info.run_id)} == FILES

    def test_only_finished_benchmark_runs_are_read(self, client: Any) -> None:
        """Failed, running, deleted, sweep and compare runs are not."""
        kept = log(client, run_of(LARGE))
        for status in ("FAILED", "KILLED"):
            log(client, run_of(TURBO), status=status)
        for kind in ("sweep", "compare"):
            log(client, run_of(TURBO, tags={"whisperbench.kind": kind}))
        client.delete_run(log(client, run_of(TURBO)))
        client.create_run("0", tags={"whisperbench.kind": "benchmark"})
        assert [record.run_id for record in runs.find_runs(client, None, None)] == [kept]

    def test_it_attaches_to_the_run_of_mlflow_run(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Inside a project run the artifacts go to the run that has been started already."""
        log(client, run_of(LARGE))
        run_id = client.create_run("0", run_name="ours").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        assert compare().exit_code == 0
        assert client.get_run(run_id).data.tags["whisperbench.kind"] == "compare"
        assert "leaderboard.html" in {artifact.path for artifact in client.list_artifacts(run_id)}
        assert len(client.search_runs(["0"])) == 1

    def test_filters(self, client: Any) -> None:
        """MLflow's own filter, patterns of GPU and model, and experiments by name."""
        log(client, run_of(LARGE, wer=2.0))
        log(client, run_of(TURBO, wer=4.0))
        log(client, run_of(LARGE, wer=2.0, gpu="NVIDIA A10"))
        log(client, dataclasses.replace(run_of(BASE), experiment="other"))
        assert "large-v3-turbo" not in compare(filter="metrics.wer < 3", published="none").stdout
        assert "A10" not in compare(gpu="*H100*", published="none").stdout
        assert "| large-v3 |" not in compare(model="*turbo", published="none").stdout
        assert "| base |" not in compare(experiments="speech", published="none").stdout
        result = compare(experiments="speach")
        assert (result.exit_code, "Choose from: speech" in result.stderr) == (2, True)

    def test_repeats_inside_a_run(self, client: Any) -> None:
        """Each repeat is a value of the run's history; a run with a damaged tag is left out, and named."""
        log(client, run_of(rate=41.0, tags={REPEATS: "reqs_per_sec=40,45,41"}))
        (found,) = runs.find_runs(client, None, None)
        assert found.history["reqs_per_sec"] == (40.0, 45.0, 41.0)
        damaged = [log(client, run_of(TURBO, tags={REPEATS: f"reqs_per_sec=40,{value}"})) for value in ("nan", "x")]
        result = compare(full="true", published="none")
        assert result.exit_code == 0, result.stderr
        assert "1 run compared, 2 left out" in result.stdout
        assert result.stdout.count("| its tag whisperbench.repeats is damaged |") == 2
        assert all(f"({run_id}) is left out, because its tag" in result.stderr for run_id in damaged)

    @pytest.mark.parametrize("start", [-(10**14), 9007199254740991])
    def test_a_time_that_is_not_a_date(self, start: int, client: Any) -> None:
        """Another client has set it; it must not prevent the comparison of the other runs."""
        run_id = log(client, run_of(LARGE))
        with contextlib.closing(sqlite3.connect(str(client.tracking_uri).removeprefix("sqlite:///"))) as store, store:
            store.execute("UPDATE runs SET start_time = ? WHERE run_uuid = ?", (start, run_id))
        assert [record.run_id for record in runs.find_runs(client, None, None)] == [run_id]

    @pytest.mark.parametrize("cause", ["File too large", "Not a directory"])
    def test_a_cache_that_cannot_be_written(self, cause: str, client: Any, directory: Path) -> None:
        """The directory, the cause and the setting; the limit of a file's size stands for a full disk."""
        run_id, limits = log(client, run_of(LARGE), spoken([1] * 4)), resource.getrlimit(resource.RLIMIT_FSIZE)
        if cause == "Not a directory":
            (directory / "cache").touch()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(ConfigError, match=rf"{directory}/cache/\w+ cannot .* \({cause}\)\. .* XDG_CACHE_HOME"):
                runs.read_transcripts(client, [run_id], directory / "cache")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def test_transcripts_are_fetched_once(self, client: Any, directory: Path) -> None:
        """The transcripts of the typical run of each configuration are kept for the next comparison."""
        near = [log(client, run_of(c, wer=w), spoken([1] * 40)) for c, w in ((LARGE, 2.0), (TURBO, 2.1))]
        log(client, run_of(LARGE, wer=2.2, day=1), spoken([1] * 40))
        first = compare()
        assert fetched(directory) == set(near)
        for path in (directory / "artifacts").rglob("transcripts.json"):
            path.unlink()
        assert compare().stdout == first.stdout

    def test_the_cache_of_another_server(self, client: Any, directory: Path) -> None:
        """Two servers may have runs with the same id, for example after a database was copied."""
        run_id = log(client, run_of(LARGE), spoken([1] * 4))
        shutil.copytree(directory / "artifacts", directory / "other")
        with contextlib.closing(sqlite3.connect(directory / "mlflow.db")) as database:
            database.execute("VACUUM INTO 'other.db'")
        with contextlib.closing(sqlite3.connect(directory / "other.db")) as database, database:
            database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, '/artifacts', '/other')")
        for path in (directory / "other").rglob("transcripts.json"):
            path.write_text(spoken([2] * 4))
        clients = (client, connect(f"sqlite:///{directory}/other.db"), client)
        ours, theirs, again = (runs.read_transcripts(each, [run_id], directory)[run_id] for each in clients)
        assert ours == again != theirs

    def test_a_bundle_that_was_logged_twice_counts_once(self, client: Any) -> None:
        """Two uploads of copies at the same time may create two runs; the older one is kept."""
        tags = {BUNDLE_TAG: "b1"}
        kept = log(client, run_of(LARGE, tags=tags))
        log(client, run_of(LARGE, day=1, tags=tags))
        log(client, run_of(LARGE, day=2, tags={BUNDLE_TAG: "b2"}))
        assert [run.run_id for run in runs.find_runs(client, None, None)].count(kept) == 1
        assert len(runs.find_runs(client, None, None)) == 2

    def test_an_impossible_metric_is_not_shown(self, client: Any) -> None:
        """A client of another program may have logged it."""
        log(client, run_of(LARGE, wer=-5.0, interval=(-6.0, -4.0)))
        log(client, run_of(TURBO))
        assert "-5" not in compare(published="none").stdout

    def test_a_name_of_an_experiment_may_contain_commas(self, client: Any) -> None:
        """If it is the only one."""
        log(client, dataclasses.replace(run_of(LARGE), experiment="team, asr"))
        log(client, dataclasses.replace(run_of(TURBO), experiment="other"))
        assert len(runs.find_runs(client, "team, asr", None)) == 1
        assert len(runs.find_runs(client, "other ,Default", None)) == 1

    def test_a_result_in_mlflow_run_id_is_not_changed(
        self, client: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A job scheduler sets the variable for all commands; the message names it before anything is compared."""
        run_id = log(client, run_of(LARGE))
        before = held_by(client, run_id, directory / "before")
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        refused = compare()
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "Unset MLFLOW_RUN_ID" in refused.stderr
        assert held_by(client, run_id, directory / "after") == before

    def test_a_table_with_costs(self, client: Any) -> None:
        """By the prices given, with a warning about a price that has no effect; without any cost it is refused."""
        for config, rate in ((LARGE, 40.0), (TURBO, 80.0)):
            log(client, run_of(config, rate=rate))
        result = compare(format="table", sort="cost", prices="H100=2.96,A10=1", published="none")
        assert "|" not in result.stdout
        cheapest = next(line for line in result.stdout.splitlines() if line.startswith("large-v3"))
        assert (cheapest.split()[0], "0.500" in cheapest) == ("large-v3-turbo", True)
        assert "prices: no run was measured on a GPU 'A10'." in result.stderr
        refused = compare(sort="cost")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "sort=cost is not possible, because no run has usd_per_audio_hour. Set prices=" in refused.stderr

    def test_odd_runs(self, client: Any) -> None:
        """One utterance, a WER of 0, NaN, and transcripts that are missing or broken: a report all the same."""
        log(client, run_of(LARGE, wer=0.0, interval=(0.0, 0.0)), spoken([0]))
        log(client, run_of(TURBO, wer=0.0, interval=(0.0, 0.0)), spoken([0, 0]))
        log(client, run_of(BASE, wer=float("nan")), "not json")
        log(client, run_of(BenchmarkConfig(model="tiny"), wer=1.0, interval=(0.0, 2.0)), "[]")
        log(client, run_of(BenchmarkConfig(model="small"), wer=1.0, interval=(0.0, 2.0)))
        result = compare(full="true")
        assert result.exit_code == 0, result.stderr
        assert "no transcripts" in result.stdout


class TestTwoRuns:
    def test_what_changed(self, client: Any, directory: Path) -> None:
        """Params, metrics, and the changed utterances, aligned, in the terminal and in HTML; 8 digits name a run."""
        rows = [("u1", "s1", "the quick fox", "the quick fox", 0, 3), ("u2", "s2", "jumped over", "jumped over", 0, 2)]
        a = log(client, run_of(LARGE, wer=0.0), table_of(rows))
        b = log(client, run_of(TURBO, wer=20.0), table_of([(*rows[0][:3], "the thick fox", 1, 3), rows[1]]))
        hold_clip(client, b, directory, "01_u1.wav")
        result = compare(runs=f"{a[:8]},{b[:8]}")
        assert result.exit_code == 0, result.stderr
        assert "| model | large-v3 | large-v3-turbo |" in result.stdout
        assert "WER: undecided within 0.2 points" in result.stdout
        assert "difference +20.00, " in result.stdout
        assert "the (quick→thick) fox" in result.stderr
        page = (directory / "results" / "difference.html").read_text()
        assert "<ins>thick</ins>" in page
        assert page.count("<audio") == page.count("data:audio/wav;base64,UklGRg==") == 1
        assert "media-src data:" in page

    def test_runs_that_cannot_be_compared(self, client: Any) -> None:
        """One id twice, an id that does not exist, and a run that did not finish."""
        known, failed = log(client, run_of(LARGE)), log(client, run_of(LARGE), status="FAILED")
        for wanted, named in (
            (f"{known},{known}", "two different run ids"),
            (f"{known},{'0' * 32}", "0" * 32),
            (f"{known},{failed}", failed),
        ):
            result = compare(runs=wanted)
            assert (result.exit_code, named in result.stderr) == (2, True), result.stderr


class TestGate:
    @pytest.mark.parametrize(
        ("errors", "rates", "status"),
        [(1, (40.0, 40.1), 0), (2, (40.0, 40.1), 1), (1, (30.0,), 2)],
    )
    def test_status(self, client: Any, errors: int, rates: tuple[float, ...], status: int) -> None:
        """0 and 1 where the runs show it, else 2 with what to run; repeats of the newest run count."""
        for usual in (39.9, 40.0, 40.1):
            log(client, run_of(wer=5.0, rate=usual, tags={COMMIT: "a"}), spoken([1] * 400))
        for rate in rates:
            log(client, run_of(wer=5.0 * errors, rate=rate, day=1, tags={COMMIT: "b"}), spoken([errors] * 400))
        result = compare(baseline="large-v3-auto-128")
        assert result.exit_code == status, result.output
        assert ("more run" in result.stdout) is (status == 2)
        assert "against the baseline 'large-v3-auto-128' (3 runs, the newest" in result.stdout

    def test_chosen_candidates(self, client: Any) -> None:
        """The runs in `runs` are judged instead of the newest, by the first digits of their ids."""
        for usual in (39.9, 40.0, 40.1):
            log(client, run_of(rate=usual), spoken([1] * 400))
        slow = [log(client, run_of(rate=rate, day=1), spoken([1] * 400))[:8] for rate in (10.0, 10.1)]
        log(client, run_of(day=2), spoken([1] * 400))
        assert compare(baseline="large-v3-auto-128", runs=",".join(slow)).exit_code == 1

    def test_errors_are_never_status_1(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither another GPU nor a filter that MLflow refuses is a regression; an unexpected error ends with 70."""
        baseline = log(client, run_of(), spoken([1] * 80))
        log(client, run_of(gpu="NVIDIA A10", day=1), spoken([1] * 80))
        assert compare(baseline=baseline).exit_code == 2
        refused = compare(baseline=baseline, filter="attributes.colour = 'red'")
        assert refused.exit_code == 2
        assert "filter=\"attributes.colour = 'red'\" is not allowed: Invalid attribute key" in refused.stderr
        monkeypatch.setattr("whisperbench.comparison.gate_case", lambda *_: 1 / 0)
        result = compare(baseline=baseline)
        assert (result.exit_code, "unexpected ZeroDivisionError" in result.stderr) == (70, True)


def test_a_reference_is_named_before_looking(client: Any) -> None:
    """Rows are compared with it instead of the most accurate one; an unknown one is refused."""
    log(client, run_of(LARGE, wer=5.0), spoken([1] * 400, per_speaker=20))
    other = log(client, run_of(TURBO, wer=10.0), spoken([2] * 400, per_speaker=20))
    result = compare(reference=other[:8], full="true")
    assert result.exit_code == 0, result.stderr
    assert "better (-5." in result.stdout
    assert "large-v3-turbo" in next(line for line in result.stdout.splitlines() if "| reference |" in line)
    refused = compare(reference="unknown")
    assert (refused.exit_code, "Choose one of large-v3" in refused.stderr) == (2, True)


def test_rescoring_leaves_the_server_as_it_is(client: Any) -> None:
    """A run that an older normaliser punished moves up; both runs keep what is stored."""
    old, reference = "whisper-english/0.0.1", "the colour of mister smith"
    punished = table_of([("u1", "s1", reference, "the color of mr smith", 2, 5)])
    wrong = table_of([("u1", "s1", reference, "the colour of mister", 1, 5)])
    ids = [
        log(client, run_of(LARGE, wer=40.0, interval=None, normalizer=old), punished),
        log(client, run_of(TURBO, wer=20.0, interval=None, normalizer=old), wrong),
    ]
    result = compare(rescore="true", full="true")
    assert result.exit_code == 0, result.stderr
    assert f"| large-v3 | {H100} | 40.00 → 0.00 | 2 → 1 |" in result.stdout
    assert [client.get_run(run_id).data.metrics["wer"] for run_id in ids] == [40.0, 20.0]


class TestRefused:
    @pytest.mark.usefixtures("client")
    def test_no_runs(self) -> None:
        """An empty store: what was searched, and status 2."""
        result = compare(gpu="*B200*")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "gpu=*B200*" in result.stderr
        assert "Measure one first." in result.stderr

    def test_results_that_cannot_be_written(self, client: Any, directory: Path) -> None:
        """A file stands where the directory should be."""
        log(client, run_of())
        (directory / "taken").write_text("")
        assert "cannot be written" in compare(results_dir="taken").stderr


class TestClips:
    def test_the_worst_of_the_first_row(self, client: Any, directory: Path) -> None:
        """Utterances with errors that the run holds as samples, most errors first."""
        run_id = log(client, run_of(LARGE, wer=2.0), spoken([0, 1, 5, 2]))
        log(client, run_of(TURBO, wer=9.0, interval=(8, 10)), spoken([1] * 4))
        for name in ("01_u0002.wav", "02_u0001.wav", "03_u0000.wav"):
            hold_clip(client, run_id, directory, name)
        assert compare().exit_code == 0
        page = (directory / "results" / "leaderboard.html").read_text()
        heard = [part.partition('"')[0] for part in page.split('aria-label="Audio of ')[1:]]
        assert heard == ["u0002", "u0001"]

    def test_a_page_stays_small(self, client: Any, directory: Path) -> None:
        """Ten clips and 5 MB at most: a clip that does not fit is left out."""
        run_id = log(client, run_of(LARGE), spoken([1] * 12))
        for number in range(12):
            size = 4_995_000 if number == 1 else 9_000
            hold_clip(client, run_id, directory, f"{number:02d}_u{number:04d}.wav", size)
        ids = [f"u{number:04d}" for number in range(12)]
        assert list(read_samples(client, [run_id], ids, directory / "kept")) == [ids[0], *ids[2:11]]


def test_runs_of_two_users_on_a_server(
    tracking_server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One leaderboard shows both, with links into that server."""
    client = connect(tracking_server.address)
    for config, user in ((LARGE, "ann"), (TURBO, "bo")):
        log(client, run_of(config, user=user), spoken([1] * 40))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.address)
    result = compare(experiments="speech", full="true")
    assert result.exit_code == 0, result.stderr
    found = json.loads((directory / "results" / "leaderboard.json").read_text())
    assert {row["who"] for row in found["boards"][0]["rows"]} == {"ann", "bo"}
    assert f"({tracking_server.address}/#/experiments/" in result.stdout
