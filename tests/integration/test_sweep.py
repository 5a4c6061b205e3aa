"""The sweep command with real processes and a real MLflow store; the benchmark processes measure nothing."""

from __future__ import annotations

import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from tests.support.commands import FAKE_SWEEP, run, start, wait_until
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
TINY = {"model": "tiny.en", "corpus": "clips", "load_format": "dummy"}


class Bench:
    """A fresh store and a small corpus in a folder, and the sweep command run there."""

    def __init__(self, directory: Path, client: Any) -> None:
        self.directory, self.client = directory, client
        self.engine = f"600.{uuid.uuid4().int % 10**9}"
        (directory / "clips").mkdir()
        for number in range(CLIPS):
            soundfile.write(directory / "clips" / f"{number}.wav", np.zeros(1_600, dtype=np.float32), 16_000)

    def start(self, seconds: float = 0.0, **options: object) -> subprocess.Popen[str]:
        variables = {ENGINE_VARIABLE: self.engine, SECONDS_VARIABLE: str(seconds)}
        return start(FAKE_SWEEP, self.directory, {**TINY, **options}, **variables)

    def run(self, **options: object) -> tuple[int, str, str]:
        process = self.start(**options)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def runs(self, kind: str) -> list[Any]:
        """The oldest first."""
        return list(self.client.search_runs(["0"], f"tags.`whisperbench.kind` = '{kind}'", order_by=["start_time"]))

    def statuses(self) -> list[str]:
        return sorted(run.info.status for run in self.runs("benchmark"))

    def engines(self) -> list[int]:
        """Fake engine processes that are running."""
        sleeping = (p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "sleep")
        return [process.pid for process in sleeping if self.engine in (process.info["cmdline"] or ())]

    def has(self, run: Any, name: str) -> bool:
        return name in {each.path for each in self.client.list_artifacts(run.info.run_id)}


@pytest.fixture
def bench(client: Any, tmp_path: Path, no_project_run: None) -> Bench:
    return Bench(tmp_path, client)


def test_a_sweep_ends_with_a_leaderboard(bench: Bench) -> None:
    """One parent that counts and lists its children; a second start has nothing to measure."""
    options = {"max_num_seqs": "4,8", "repeats": 2}
    status, out, err = bench.run(**options)
    assert status == 0, err
    assert bench.statuses() == ["FINISHED"] * 4
    done = bench.runs("benchmark")
    assert [run.data.params["max_num_seqs"] for run in done] == ["4", "8", "4", "8"]
    (parent,) = bench.runs("sweep")
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in done} == {parent.info.run_id}
    assert [parent.data.metrics[name] for name in ("done", "failed", "skipped", "total")] == [4, 0, 0, 4]
    assert parent.data.tags["mlflow.note.content"].count("random-seqs") == 4
    assert bench.has(parent, "leaderboard.md")
    assert parent.data.metrics["best/reqs_per_sec"] == 16.0
    assert "tiny.en" in out
    assert bench.engines() == []
    status, out, err = bench.run(**options, dry_run="true")
    assert status == 0, err
    assert "4 skipped" in out


def test_a_sweep_continues_and_names_what_failed(bench: Bench) -> None:
    """Out of memory, killed, too slow, invalid: FAILED with cause and log; the rest FINISHED; exit status 1.

    A bad model is refused without a child run.  The next start measures the failed ones again.
    """
    entries = f"[{OUT_OF_MEMORY}, {KILLED_BY_THE_SYSTEM}, {SLOW}, {PAUSES}, 4]"
    grid = f"- {{model: no_such_model, max_num_seqs: 4}}\n- {{model: tiny.en, max_num_seqs: {entries}}}\n"
    (bench.directory / "grid.yaml").write_text(grid, encoding="utf-8")
    sweep = {"model": "large-v3-turbo", "grid": "grid.yaml", "time_limit_minutes": 0.6}
    status, out, err = bench.run(**sweep)
    assert status == 1, err
    assert "1 done, 4 failed, 0 skipped (finished before), 1 refused, 0 to do" in err
    assert "refused: model='no_such_model'" in err
    assert "| tiny.en |" in out
    failed = [run for run in bench.runs("benchmark") if run.info.status == "FAILED"]
    causes = [run.data.tags["whisperbench.failure"] for run in failed]
    assert causes[0] == "CUDA out of memory: 12 GiB wanted, 3 GiB free."
    assert causes[1].startswith("killed by SIGKILL after")
    assert "time_limit_minutes" in causes[2]
    assert causes[3] == "the speed was not measured: the engine made no progress for 34 s"
    assert all(bench.has(run, "benchmark.log") for run in failed)
    assert bench.engines() == []
    (parent,) = bench.runs("sweep")
    assert parent.info.status == "FAILED"
    assert "out of memory" in parent.data.tags["whisperbench.failure"]
    status, out, err = bench.run(**sweep, dry_run="true")
    assert status == 0, err
    assert "1 skipped (finished before), 1 refused, 4 to do" in out


@pytest.mark.parametrize("mistake", [{"corpus": "no_such_folder"}, {"results_dir": "/proc/results"}])
def test_a_sweep_that_cannot_be_measured_leaves_no_run(bench: Bench, mistake: dict[str, str]) -> None:
    """It creates a run neither for itself nor for a configuration."""
    status, _, err = bench.run(**mistake)
    assert status == 2
    assert next(iter(mistake.values())) in err
    assert bench.client.search_runs(["0"]) == []


def test_a_dry_run_estimates_and_refuses(bench: Bench) -> None:
    """Single runs are the basis of an estimate and replace none; a cause is named once; without any run, status 2."""
    status, _, err = run((*FAKE_SWEEP[:-1], "benchmark"), bench.directory, TINY)
    assert status == 0, err
    status, out, err = bench.run(kv_cache_dtype="auto,fp8", dry_run="true")
    assert status == 0, err
    assert "1 refused, 1 to do" in out
    assert "time: 0:" in out
    assert out.count("kv_cache_dtype=fp8 needs a GPU") == 1
    status, out, err = bench.run(kv_cache_dtype="fp8", max_num_seqs="4,8", dry_run="true")
    assert (status, out) == (2, "")
    assert err.count("kv_cache_dtype=fp8 needs a GPU") == 1
    assert bench.runs("sweep") == []


def test_a_search_ends_with_the_command_line_of_the_winner(bench: Bench) -> None:
    """The fake is fastest with most sequences; a second start has nothing to measure and prints the same."""
    winner = "mlflow run . -P model=tiny.en -P load_format=dummy -P corpus=clips -P max_num_seqs=2"
    search = {"objective": "reqs_per_sec", "max_num_seqs": "1,2", "trials": 5}
    for expected in ("2 done, 0 failed, 0 skipped", "0 done, 0 failed, 2 skipped"):
        status, out, err = bench.run(**search)
        assert status == 0, err
        assert out.splitlines()[-2:] == ["reqs_per_sec: 4.00 | best of 2 settings", winner]
        assert expected in err
        assert "2 runs compared" in out
    assert [run.info.status for run in bench.runs("benchmark")] == ["FINISHED"] * 2
    assert [run.data.params["best_command"] for run in bench.runs("sweep")] == [winner] * 2
    status, out, err = bench.run(**search, dry_run="true")
    assert status == 0, err
    assert "1 skipped (finished before), 1 to do" in out
    assert "searched: max_num_seqs=1,2\ntime: 0:" in out


def test_parts_of_the_cores(bench: Bench) -> None:
    """Each run has a warning that others were measured beside it; the next start has nothing to measure."""
    options = {"max_num_seqs": "4,8,16", "parallel_runs": 2}
    status, _, err = bench.run(**options)
    assert status == 0, err
    assert bench.statuses() == ["FINISHED"] * 3
    assert all("were measured on this host" in run.data.tags[WARNINGS] for run in bench.runs("benchmark"))
    assert "running on cores" in err
    status, out, err = bench.run(**options, dry_run="true")
    assert (status, "3 skipped" in out) == (0, True), err


@pytest.mark.parametrize("slots", [1, 2])
def test_a_sigterm_closes_child_and_parent(bench: Bench, slots: int) -> None:
    """One child run per slot, all KILLED; 128 + 15 is the exit status; the engines are gone, and no other starts."""
    process = bench.start(seconds=600, max_num_seqs="4,8,16", parallel_runs=slots)
    wait_until(lambda: len(bench.engines()) == slots, process)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert bench.statuses() == ["KILLED"] * slots
    assert [run.info.status for run in bench.runs("sweep")] == ["KILLED"]
    assert bench.engines() == []
