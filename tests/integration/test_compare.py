"""The compare flow against real MLflow stores and a real server."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import compare
from tests.support.servers import Server
from tests.support.stores import H100, fresh_store, log, run_of, spoken, table_of, without_tag
from whisperbench.compare.groups import Grouping
from whisperbench.compare.rank import rank
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.record import RunRecord
from whisperbench.tracking import read as runs

PROJECT = Path(__file__).resolve().parents[2]
LARGE, TURBO = BenchmarkConfig(model="large-v3"), BenchmarkConfig(model="large-v3-turbo")


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a fresh store, which the flow uses too; its results and its cache are in tmp_path."""
    import mlflow

    address = fresh_store(tmp_path, empty_store)
    settle(monkeypatch, tmp_path, address)
    return mlflow.MlflowClient(address)


def settle(monkeypatch: pytest.MonkeyPatch, directory: Path, address: str) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    monkeypatch.chdir(directory)


def run_flow(**options: str) -> Result:
    """The command as a shell would run it, in this process."""
    return CliRunner().invoke(compare.main, [f"--{n}={value}" for n, value in options.items()], catch_exceptions=False)


def fetched(directory: Path) -> set[str]:
    return {path.stem for path in (directory / "whisperbench" / "transcripts").glob("*.json")}


class TestLeaderboards:
    def test_every_file_is_written_and_logged(self, client: Any, tmp_path: Path) -> None:
        """The short answer or everything on stdout, five files in results_dir and as artifacts of a compare run."""
        for config, wer in ((LARGE, 2.0), (TURBO, 2.1)):
            log(client, run_of(config, wer=wer), spoken([1] * 40))
        result = run_flow(full="true")
        assert result.exit_code == 0, result.stderr
        names = {"leaderboard.md", "leaderboard.csv", "leaderboard.json", "leaderboard.html", "pareto.svg"}
        assert {path.name for path in (tmp_path / "results").iterdir()} == names
        assert result.stdout.strip() == (tmp_path / "results" / "leaderboard.md").read_text().strip()
        assert "| 1 = | large-v3-turbo" in result.stdout
        assert result.stdout.startswith(run_flow().stdout.strip())
        assert not client.search_runs(["0"], "tags.`whisperbench.kind` = 'compare'"), "not among what is compared"
        own = client.get_experiment_by_name("whisperbench-compare").experiment_id
        found = client.search_runs([own], "tags.`whisperbench.kind` = 'compare'")
        assert [run.info.status for run in found] == ["FINISHED"] * 2
        assert {artifact.path for artifact in client.list_artifacts(found[0].info.run_id)} == names

    def test_only_finished_benchmark_runs_enter(self, client: Any) -> None:
        """Failed, running, deleted, sweep and compare runs never do."""
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
        assert run_flow().exit_code == 0
        assert client.get_run(run_id).data.tags["whisperbench.kind"] == "compare"
        assert "leaderboard.html" in {artifact.path for artifact in client.list_artifacts(run_id)}
        assert len(client.search_runs(["0"])) == 1

    def test_filters_narrow_on_the_server_and_here(self, client: Any) -> None:
        """MLflow's own filter, and globs over GPU and model."""
        log(client, run_of(LARGE, wer=2.0))
        log(client, run_of(TURBO, wer=4.0))
        log(client, run_of(LARGE, wer=2.0, gpu="NVIDIA A10"))
        assert "large-v3-turbo" not in run_flow(filter="metrics.wer < 3", published="none").stdout
        assert "A10" not in run_flow(gpu="*H100*", published="none").stdout
        assert "| large-v3 |" not in run_flow(model="*turbo", published="none").stdout

    def test_experiments_are_chosen_by_name(self, client: Any) -> None:
        """Runs of other experiments stay out; an unknown name is an error with a suggestion."""
        log(client, run_of(LARGE))
        log(client, dataclasses.replace(run_of(TURBO), experiment="other"))
        assert "large-v3-turbo" not in run_flow(experiments="speech", published="none").stdout
        result = run_flow(experiments="speach")
        assert result.exit_code == 2
        assert "Did you mean 'speech'?" in result.stderr

    def test_repeats_inside_a_run_have_their_spread(self, client: Any) -> None:
        """Three repeats are three values; the step after them, which holds the median again, is none."""
        run = run_of(BenchmarkConfig(model="large-v3", repeats=3), rate=41.0)
        run_id = log(client, run)
        client.restore_run(run_id)
        for step, value in enumerate((40.0, 45.0, 41.0, 41.0)):
            client.log_metric(run_id, "reqs_per_sec", value, step=step, timestamp=2_000_000_000_000 + step)
        (found,) = runs.find_runs(client, None, None)
        assert found.history["reqs_per_sec"] == (40.0, 45.0, 41.0)

    def test_transcripts_are_fetched_once_and_only_where_needed(self, client: Any, tmp_path: Path) -> None:
        """Two contenders are fetched and kept; the third, far behind, never is."""
        near = [
            log(client, run_of(c, wer=w, interval=(1, 3)), spoken([1] * 40)) for c, w in ((LARGE, 2.0), (TURBO, 2.1))
        ]
        log(client, run_of(BenchmarkConfig(model="base"), wer=9.0, interval=(8, 10)), spoken([4] * 40))
        first = run_flow()
        assert fetched(tmp_path) == set(near)
        for path in (tmp_path / "artifacts").rglob("transcripts.json"):
            path.unlink()
        assert run_flow().stdout == first.stdout

    def test_runs_without_transcripts_are_ranked_and_marked(self, client: Any) -> None:
        """No paired test, and the table says so."""
        log(client, run_of(LARGE, wer=2.0), spoken([1] * 40))
        log(client, run_of(TURBO, wer=2.1))
        assert "| 2 | large-v3-turbo" in (text := run_flow(full="true").stdout)
        assert "not tested: no transcripts" in text

    def test_hostile_runs_harm_nothing(self, client: Any, tmp_path: Path) -> None:
        """HTML, formulas and terminal escapes in names and transcripts reach no output as themselves."""
        evil = "=cmd <script>alert(1)</script>\x1b[31m|"
        a = log(client, run_of(TURBO, name=evil, user=evil, wer=2.0), spoken([1] * 8, said=evil))
        b = log(client, run_of(LARGE, gpu=evil, wer=2.1), spoken([3] * 8, said=evil))
        for result in (run_flow(full="true"), run_flow(runs=f"{a},{b}")):
            assert result.exit_code == 0, result.stderr
            assert "\x1b[31m|" not in result.output
        for path in (tmp_path / "results").iterdir():
            text = path.read_text()
            assert "\x1b" not in text
            if path.suffix in (".html", ".md", ".svg"):
                assert "<script>alert" not in text


class TestTwoRuns:
    def test_what_changed(self, client: Any, tmp_path: Path) -> None:
        """Params, metrics with the paired test, and the changed utterances, aligned, in the terminal and in HTML."""
        rows = [("u1", "s1", "the quick fox", "the quick fox", 0, 3), ("u2", "s2", "jumped over", "jumped over", 0, 2)]
        a = log(client, run_of(LARGE, wer=0.0), table_of(rows))
        b = log(client, run_of(TURBO, wer=20.0), table_of([(*rows[0][:3], "the thick fox", 1, 3), rows[1]]))
        result = run_flow(runs=f"{a},{b}")
        assert result.exit_code == 0, result.stderr
        assert "| model | large-v3 | large-v3-turbo |" in result.stdout
        assert "WER: no significant change, +20.00 points" in result.stdout
        assert "the (quick→thick) fox" in result.stderr
        assert "<ins>thick</ins>" in (tmp_path / "results" / "difference.html").read_text()

    def test_the_digits_that_tables_show_do(self, client: Any) -> None:
        """Eight of an id; a beginning of several runs or of none is refused with what there is."""
        a, b = log(client, run_of(LARGE)), log(client, run_of(TURBO))
        result = run_flow(runs=f"{a[:8]},{b[:8]}")
        assert result.exit_code == 0, result.stderr
        assert "| model | large-v3 | large-v3-turbo |" in result.stdout
        unknown = next(digits for digits in ("0000", "1111", "2222") if not a.startswith(digits))
        assert "no id on this tracking server begins with it" in run_flow(runs=f"{a[:8]},{unknown}").stderr

    def test_a_beginning_of_several_ids_is_refused(self, client: Any, tmp_path: Path) -> None:
        """The message lists them."""
        log(client, run_of())
        fill(tmp_path / "mlflow.db", [run_of(), run_of()], ids=["abcd" + "0" * 28, "abcd" + "1" * 28])
        assert "2 ids begin with it: abcd000" in run_flow(runs="abcd,1234").stderr

    @pytest.mark.parametrize("run_ids", ["x,y", "0" * 32, f"{'0' * 32},{'0' * 32}"])
    @pytest.mark.usefixtures("client")
    def test_two_ids_are_needed(self, run_ids: str) -> None:
        """The message says what an id looks like."""
        assert "two different run ids" in run_flow(runs=run_ids).stderr

    def test_unknown_and_unfinished_runs(self, client: Any) -> None:
        """Named, with what they are."""
        known, failed = log(client, run_of(LARGE)), log(client, run_of(LARGE), status="FAILED")
        assert f"Run {'0' * 32} does not exist" in run_flow(runs=f"{known},{'0' * 32}").stderr
        result = run_flow(runs=f"{known},{failed}")
        assert result.exit_code == 2
        assert "its status FAILED" in result.stderr


class TestGate:
    @pytest.mark.parametrize(
        ("errors", "rate", "status", "said"),
        [
            ([1] * 80, 40.0, 0, "No regression"),
            ([2] * 80, 40.0, 1, "less accurate"),
            ([1] * 80, 30.0, 1, "slower"),
            ([2] * 80, 30.0, 1, "less accurate and slower"),
        ],
    )
    def test_status(self, client: Any, errors: list[int], rate: float, status: int, said: str) -> None:
        """1 for a significantly worse WER or a rate lower than allowed, with a sentence that says which."""
        for usual in (39.9, 40.0, 40.1):
            log(client, run_of(wer=5.0, rate=usual), spoken([1] * 80))
        log(client, run_of(wer=5.0 * sum(errors) / 80, rate=rate, day=1), spoken(errors))
        result = run_flow(baseline="large-v3-auto-128")
        assert (result.exit_code, said in result.stdout) == (status, True), result.output

    def test_a_chosen_candidate(self, client: Any) -> None:
        """The run in `runs` is judged instead of the newest."""
        baseline = log(client, run_of(day=0), spoken([1] * 80))
        slow = log(client, run_of(rate=10.0, day=1), spoken([1] * 80))
        log(client, run_of(day=2), spoken([1] * 80))
        assert run_flow(baseline=baseline).exit_code == 0
        assert run_flow(baseline=baseline, runs=slow).exit_code == 1

    @pytest.mark.parametrize(
        "second", [run_of(gpu="NVIDIA A10", day=1), run_of(dataset="e2" * 16, day=1), run_of(wer=None, day=1)]
    )
    def test_what_may_not_be_compared_is_status_2(self, client: Any, second: RunRecord) -> None:
        """Another GPU, other data, or a WER on one side only."""
        baseline = log(client, run_of(), spoken([1] * 80))
        log(client, second, spoken([1] * 80))
        result = run_flow(baseline=baseline)
        assert result.exit_code == 2
        assert "may not be compared" in result.stderr

    def test_errors_are_never_status_1(self, client: Any) -> None:
        """A filter that MLflow refuses is no regression."""
        log(client, run_of(), spoken([1] * 80))
        assert run_flow(baseline="x", filter="nonsense").exit_code == 2


class TestRescoring:
    def test_ranks_change_and_the_server_does_not(self, client: Any) -> None:
        """A run that an older normaliser punished moves up; both runs keep what is stored."""
        old = "whisper-english/0.0.1"
        said = [("u1", "s1", "the colour of mister smith", "the color of mr smith", 2, 5)]
        wrong = [("u1", "s1", "the colour of mister smith", "the colour of mister", 1, 5)]
        ids = [
            log(client, run_of(LARGE, wer=40.0, interval=None, normalizer=old), table_of(said)),
            log(client, run_of(TURBO, wer=20.0, interval=None, normalizer=old), table_of(wrong)),
        ]
        result = run_flow(rescore="true", full="true")
        assert result.exit_code == 0, result.stderr
        assert f"| large-v3 | {H100} | 40.00 → 0.00 | 2 → 1 |" in result.stdout
        assert [client.get_run(run_id).data.metrics["wer"] for run_id in ids] == [40.0, 20.0]

    def test_runs_without_transcripts_keep_their_score(self, client: Any) -> None:
        """And that is said."""
        log(client, run_of(LARGE))
        assert "1 of 1 runs keep their old score" in run_flow(rescore="true").stderr


class TestBadInput:
    @pytest.mark.usefixtures("client")
    def test_no_runs(self) -> None:
        """What was searched, and how to make a run."""
        result = run_flow(gpu="*B200*")
        assert result.exit_code == 2
        assert "every experiment with gpu=*B200*" in result.stderr
        assert "mlflow run . -P model=demo -P corpus=demo" in result.stderr

    def test_no_run_that_can_be_ranked(self, client: Any) -> None:
        """Runs of something else that bear our tag: the reason, not a traceback."""
        log(client, without_tag(run_of(), "whisperbench.accuracy_key"))
        assert "None of the 1 runs found can be ranked: it has no tag" in run_flow().stderr

    def test_a_filter_that_mlflow_does_not_understand(self, client: Any) -> None:
        """MLflow's own explanation is kept."""
        log(client, run_of())
        assert "filter='wer <' is not allowed" in run_flow(filter="wer <").stderr

    def test_odd_runs(self, client: Any) -> None:
        """One utterance, a WER of 0, NaN and broken transcripts: a report all the same."""
        log(client, run_of(LARGE, wer=0.0, interval=(0.0, 0.0)), spoken([0]))
        log(client, run_of(TURBO, wer=0.0, interval=(0.0, 0.0)), spoken([0, 0]))
        log(client, run_of(BenchmarkConfig(model="base"), wer=float("nan")), "not json")
        log(client, run_of(BenchmarkConfig(model="tiny"), wer=1.0, interval=(0.0, 2.0)), "[]")
        result = run_flow(full="true")
        assert result.exit_code == 0, result.stderr
        assert "different utterances" in result.stdout

    def test_results_that_cannot_be_written(self, client: Any, tmp_path: Path) -> None:
        """A file where the directory should be."""
        log(client, run_of())
        (tmp_path / "taken").write_text("")
        assert "cannot be written" in run_flow(results_dir="taken").stderr

    @pytest.mark.parametrize("answers", [True, False])
    def test_an_unreachable_server(self, answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused or silent: status 3 within 10 s, with the address and without the password."""
        with contextlib.closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            if answers:
                listener.listen()
            settle(monkeypatch, tmp_path, f"http://me:secret@127.0.0.1:{port}")
            started = time.perf_counter()
            result = run_flow()
        assert time.perf_counter() - started < 10
        assert result.exit_code == 3
        assert f"127.0.0.1:{port}" in result.stderr
        assert "secret" not in result.stderr


class TestScale:
    def test_a_thousand_runs(self, client: Any, tmp_path: Path) -> None:
        """50 params and 40 metrics each, 250 configurations: read and ranked in under 10 s, in little memory."""
        fill(tmp_path / "mlflow.db", [run_of(BenchmarkConfig(model=f"m{i % 250}"), day=i % 90) for i in range(1_000)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, busy = time.perf_counter(), time.process_time()  # a busy machine is not slow code
        records = runs.find_runs(client, None, None)
        (group,) = Grouping.of(records, "wer").groups
        board = rank(group, "wer", {})
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
        mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"\n1,000 runs: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU, {mib:.0f} MiB more")
        assert (len(records), len(board.rows)) == (1_000, 250)
        assert (len(records[0].params), len(records[0].metrics)) == (50, 40)
        assert cpu_seconds < 10
        assert mib < 500


class TestServer:
    def test_two_teammates(self, tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each logs from an own process under an own name; one compares all, with links into that server."""
        import mlflow

        server = tracking_server.address
        program = (
            "import mlflow, sys\n"
            "from tests.support.stores import *\n"
            "config = BenchmarkConfig(model=sys.argv[2])\n"
            "log(mlflow.MlflowClient(sys.argv[1]), run_of(config, user=sys.argv[3]), spoken([1] * 40))\n"
        )
        mlflow.MlflowClient(server).create_experiment("speech")  # MLflow refuses the slower one of two creators
        teammates = [
            subprocess.Popen(
                [sys.executable, "-c", program, server, model, user],
                env={**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"},
            )
            for model, user in (("large-v3", "ann"), ("large-v3-turbo", "bo"))
        ]
        assert [process.wait(120) for process in teammates] == [0, 0]
        settle(monkeypatch, tmp_path, server)
        result = run_flow(experiments="speech", full="true")
        assert result.exit_code == 0, result.stderr
        found = json.loads((tmp_path / "results" / "leaderboard.json").read_text())
        assert {row["who"] for row in found["boards"][0]["rows"]} == {"ann", "bo"}
        assert [row["tied"] for row in found["boards"][0]["rows"]] == [True, True]
        assert f"({server}/#/experiments/" in result.stdout
        assert f"run: {server}/#/experiments/" in result.stderr.replace("\n", "")


def fill(database: Path, records: list[RunRecord], ids: Sequence[str] = ()) -> None:
    """Insert runs straight into a store: logging a thousand of them takes minutes."""
    params, metrics, tags, rows = [], [], [], []
    for record, given in itertools.zip_longest(records, ids):
        run_id, when = given or uuid.uuid4().hex, int(record.start_time.timestamp() * 1000)
        rows.append(
            (run_id, record.name, "PROJECT", "", "", "ann", "FINISHED", when, when, "", "active", "artifacts", 0)
        )
        more = {f"param_{i}": "x" * 20 for i in range(50 - len(record.params))}
        params += [(name, value, run_id) for name, value in {**record.params, **more}.items()]
        figures = {**record.metrics, **{f"metric_{i}": float(i) for i in range(40 - len(record.metrics))}}
        metrics += [(name, value, when, 0, False, run_id) for name, value in figures.items()]
        tags += [(name, value, run_id) for name, value in record.tags.items()]
    with sqlite3.connect(database) as connection:
        run_columns = (
            "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time"
        )
        run_columns += ", source_version, lifecycle_stage, artifact_uri, experiment_id"
        for table, columns, values in (
            ("runs", run_columns, rows),
            ("params", "key, value, run_uuid", params),
            ("latest_metrics", "key, value, timestamp, step, is_nan, run_uuid", metrics),
            ("tags", "key, value, run_uuid", tags),
        ):
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)  # noqa: S608
