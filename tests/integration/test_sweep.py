"""The sweep command with real processes and a real MLflow store; the benchmark processes measure nothing."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from tests.support.commands import FAKE_SWEEP, start
from tests.support.fake_sweep import (
    ENGINE_VARIABLE,
    KILLED_BY_THE_SYSTEM,
    OUT_OF_MEMORY,
    PAUSES,
    SECONDS_VARIABLE,
    SLOW,
)
from whisperbench.results.names import WARNINGS

PATIENCE = 300.0
CLIPS = 80


class Bench:
    """A fresh store and a small corpus in a folder, and the sweep command run there."""

    def __init__(self, directory: Path, client: Any) -> None:
        self.directory, self.client = directory, client
        self.engine = f"600.{uuid.uuid4().int % 10**9}"
        (directory / "clips").mkdir()
        for number in range(CLIPS):
            soundfile.write(directory / "clips" / f"{number}.wav", np.zeros(1_600, dtype=np.float32), 16_000)

    def start(self, seconds: float = 0.0, **options: object) -> subprocess.Popen[str]:
        given = {"corpus": "clips", "load_format": "dummy", **options}
        variables = {ENGINE_VARIABLE: self.engine, SECONDS_VARIABLE: str(seconds)}
        return start(FAKE_SWEEP, self.directory, given, **variables)

    def run(self, **options: object) -> tuple[int, str, str]:
        process = self.start(**options)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def runs(self, kind: str) -> list[Any]:
        """The oldest first."""
        found = self.client.search_runs(["0"], f"tags.`whisperbench.kind` = '{kind}'", order_by=["start_time ASC"])
        return list(found)

    def statuses(self) -> list[str]:
        return sorted(run.info.status for run in self.runs("benchmark"))

    def engines(self) -> list[int]:
        """Fake engine processes that are running."""
        sleeping = (p for p in psutil.process_iter(["name"]) if p.info["name"] == "sleep")
        return [process.pid for process in sleeping if command_of(process)[-1:] == [self.engine]]

    def files(self, run: Any) -> set[str]:
        return {each.path for each in self.client.list_artifacts(run.info.run_id)}


def command_of(process: psutil.Process) -> list[str]:
    """Empty if it has ended in the meantime."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.25)


@pytest.fixture
def bench(client: Any, tmp_path: Path, no_project_run: None) -> Bench:
    return Bench(tmp_path, client)


class TestWhole:
    def test_a_sweep_ends_with_a_leaderboard(self, bench: Bench) -> None:
        """One parent that counts and lists its children; a second start has nothing to measure."""
        options = {"model": "tiny.en", "max_num_seqs": "4,8", "repeats": 2}
        status, out, err = bench.run(**options)
        assert status == 0, err
        assert bench.statuses() == ["FINISHED"] * 4
        done = bench.runs("benchmark")
        assert [run.data.params["max_num_seqs"] for run in done] == ["4", "8", "4", "8"]
        (parent,) = bench.runs("sweep")
        assert parent.info.status == "FINISHED"
        assert {run.data.tags["mlflow.parentRunId"] for run in done} == {parent.info.run_id}
        counts = {name: parent.data.metrics[name] for name in ("done", "failed", "skipped", "total")}
        assert counts == {"done": 4, "failed": 0, "skipped": 0, "total": 4}
        assert parent.data.tags["mlflow.note.content"].count("random-seqs") == 4
        assert "leaderboard.md" in bench.files(parent)
        assert parent.data.metrics["best/reqs_per_sec"] == 16.0
        assert "tiny.en" in out
        assert bench.engines() == []

        status, out, err = bench.run(**options, dry_run="true")
        assert status == 0, err
        assert "4 skipped" in out


class TestKilled:
    def test_a_sigterm_closes_the_child_and_the_parent(self, bench: Bench) -> None:
        """KILLED, both; 128 + 15 is the exit status; the engine is gone."""
        process = bench.start(seconds=600, model="tiny.en")
        wait_for(lambda: len(bench.engines()) == 1)
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGTERM
        assert bench.statuses() == ["KILLED"]
        assert [run.info.status for run in bench.runs("sweep")] == ["KILLED"]
        assert bench.engines() == []


class TestFailures:
    def test_the_sweep_continues_and_names_what_failed(self, bench: Bench) -> None:
        """Out of memory, killed, too slow: FAILED with cause and log; the rest FINISHED; exit status 1.

        A bad model is refused without a child run.
        """
        entries = f"[{OUT_OF_MEMORY}, {KILLED_BY_THE_SYSTEM}, {SLOW}, 4]"
        grid = f"- {{model: no_such_model, max_num_seqs: 4}}\n- {{model: tiny.en, max_num_seqs: {entries}}}\n"
        (bench.directory / "grid.yaml").write_text(grid, encoding="utf-8")
        status, out, err = bench.run(grid="grid.yaml", time_limit_minutes=0.6)
        assert status == 1, err
        assert "1 done, 3 failed, 0 skipped (finished before), 1 refused, 0 to do" in err
        assert "refused: model='no_such_model'" in err
        assert "| tiny.en |" in out
        failed = [run for run in bench.runs("benchmark") if run.info.status == "FAILED"]
        causes = [run.data.tags["whisperbench.failure"] for run in failed]
        assert causes[0] == "CUDA out of memory: 12 GiB wanted, 3 GiB free."
        assert causes[1].startswith("killed by SIGKILL after")
        assert "time_limit_minutes" in causes[2]
        assert all("benchmark.log" in bench.files(run) for run in failed)
        assert bench.engines() == []
        (parent,) = bench.runs("sweep")
        assert parent.info.status == "FAILED"
        assert "out of memory" in parent.data.tags["whisperbench.failure"]

    def test_an_invalid_run_is_measured_again(self, bench: Bench) -> None:
        """It has its WER and no speed, so it is FAILED, and the next start measures it again."""
        for runs in (1, 2):
            status, _, err = bench.run(model="tiny.en", max_num_seqs=PAUSES)
            assert status == 1, err
            assert "the speed was not measured: the engine made no progress for 34 s" in err
            assert bench.statuses() == ["FAILED"] * runs

    @pytest.mark.parametrize("mistake", [{"corpus": "no_such_folder"}, {"results_dir": "/proc/results"}])
    def test_a_sweep_that_cannot_be_measured_leaves_no_run(self, bench: Bench, mistake: dict[str, str]) -> None:
        """It creates a run neither for itself nor for a configuration."""
        status, _, err = bench.run(**{"model": "tiny.en", **mistake})
        assert status == 2
        assert next(iter(mistake.values())) in err
        assert bench.client.search_runs(["0"]) == []

    def test_a_dry_run_names_the_refused_configurations(self, bench: Bench) -> None:
        """Before anything is measured, with the reason."""
        given = {"model": "tiny.en", "load_format": "dummy", "kv_cache_dtype": "auto,fp8", "dry_run": "true"}
        status, out, err = bench.run(**given)
        assert status == 0, err
        assert "1 refused" in out
        assert "refused: kv\\_cache\\_dtype=fp8 needs a GPU" in out or "refused: kv_cache_dtype=fp8 needs a GPU" in out


class TestSearch:
    def test_it_ends_with_the_command_line_of_the_winner(self, bench: Bench) -> None:
        """The fake is fastest with most sequences; a second start has nothing to measure and prints the same."""
        winner = "mlflow run . -P model=tiny.en -P load_format=dummy -P corpus=clips -P max_num_seqs=2"
        for expected in ("2 done, 0 failed, 0 skipped", "0 done, 0 failed, 2 skipped"):
            status, out, err = bench.run(model="tiny.en", objective="reqs_per_sec", max_num_seqs="1,2", trials=5)
            assert status == 0, err
            assert out.splitlines()[-2:] == ["reqs_per_sec: 4.00 | best of 2 settings", winner]
            assert expected in err
            assert "2 runs compared" in out
        assert [run.info.status for run in bench.runs("benchmark")] == ["FINISHED"] * 2
        assert [run.data.params["best_command"] for run in bench.runs("sweep")] == [winner] * 2


class TestParallel:
    def test_two_on_parts_of_the_cores(self, bench: Bench) -> None:
        """Two child runs at a time, with a warning in each; the next start has nothing to measure."""
        process = bench.start(seconds=3, model="tiny.en", max_num_seqs="4,8,16", parallel_runs=2)
        wait_for(lambda: len(bench.engines()) == 2)
        assert bench.statuses() == ["RUNNING", "RUNNING"]
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert bench.statuses() == ["FINISHED"] * 3
        assert bench.engines() == []
        assert all("were measured on this host" in run.data.tags[WARNINGS] for run in bench.runs("benchmark"))
        assert "running on cores" in err
        status, out, err = bench.run(model="tiny.en", max_num_seqs="4,8,16", parallel_runs=2, dry_run="true")
        assert (status, "3 skipped" in out) == (0, True), err

    def test_a_sigterm_closes_both(self, bench: Bench) -> None:
        """Both child runs are KILLED, and no third one starts."""
        process = bench.start(seconds=600, model="tiny.en", max_num_seqs="4,8,16", parallel_runs=2)
        wait_for(lambda: len(bench.engines()) == 2)
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGTERM
        assert bench.statuses() == ["KILLED", "KILLED"]
        assert bench.engines() == []
