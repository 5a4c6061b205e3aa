"""Soak test: commands meet random faults, and afterwards no result is lost, doubled or wrong, and nothing is left.

    python -m tests.nightly.soak --minutes 30 --seed 1

It uses the real engine on the demo corpus, one at a time (`--engine fake` tries the soak itself).  Each round starts a
run, a sweep, an upload or `mlflow run`, causes one of `soak_faults.FAULTS` at a random moment, waits for the end,
removes the fault, recovers as a user would (stale runs closed, results uploaded, the sweep started again), and checks
the result.  It prints a line for each round and a table at the end.  The exit status is 1 if a round failed; its
directory is kept.  The same seed gives the same faults; the moments depend on the machine.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.nightly.soak_faults import FAULTS, MARK, Front, Round
from tests.support.bundles import contents_of, result_in
from tests.support.commands import FAKE_BENCHMARK, PROJECT, command, python_path, words_of
from tests.support.leftovers import files_in, segments, unused_segments, wait_for_none
from tests.support.servers import Server, served_store
from tests.support.stores import all_runs, fresh_store
from whisperbench.corpus.corpus import DEMO
from whisperbench.errors import BundleError
from whisperbench.results.bundle import BUNDLE_FILE, PARTIAL, Origin, read_bundle, unlogged_bundles
from whisperbench.results.names import KIND
from whisperbench.results.recording import TRANSCRIPTS, read_journal
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.tracked_run import close_stale_runs

LIMIT_SECONDS, LIMIT_RUNS = 420, 4
"""A command hangs if it has not ended so long after its fault, or in the time of so many runs on this machine."""
GONE_SECONDS = 30
CLIPS, REPEATS = 8, 6
PROBLEMS = ("hung", "status", "lost", "twice", "left")
RIGHT = {
    0: {"FINISHED"},
    1: {"FAILED", "FINISHED"},  # FINISHED: the upload could complete what the disk had refused
    3: {"FINISHED", "KILLED", "FAILED"},
    130: {"KILLED", "FINISHED"},
    143: {"KILLED", "FINISHED"},
    -9: {"KILLED", "FINISHED"},
}
"""A command's exit status and the statuses that its run may have after recovery."""


class Soak:
    def __init__(self, directory: Path, seed: int, engine: str, only: str | None) -> None:
        self.directory, self.chance, self.only = directory, random.Random(seed), only  # noqa: S311 - moments, not secrets
        self.benchmark = command("benchmark") if engine == "real" else FAKE_BENCHMARK
        self.delay = "0" if engine == "real" else "0.1"
        self.template = directory / "template.db"
        served = directory / "server"
        served.mkdir()
        self.server = Server(served, served_store(served, self.template)).start()
        self.front = Front(self.server.port)
        self.bag: list[str] = []
        self.typical = 60.0 if engine == "real" else 15.0
        self.rounds: list[tuple[str, list[str]]] = []
        self.current: Round | None = None

    def close(self) -> None:
        """End everything, also if the soak itself is stopped in the middle of a round."""
        self.server.kill()
        for process in self.current.family() if self.current else []:
            with contextlib.suppress(psutil.Error):
                process.kill()

    @property
    def limit(self) -> float:
        """Seconds."""
        return max(LIMIT_SECONDS, LIMIT_RUNS * self.typical)

    def play(self, number: int) -> None:
        """One round, and its line."""
        if not self.bag:  # each fault once before any is repeated; the first round measures a run
            self.bag = [self.only] if self.only else self.chance.sample(list(FAULTS), len(FAULTS))
            self.bag.sort(key=lambda name: number == 1 and name == "nothing")
        name = self.bag.pop()
        fault = FAULTS[name]
        action = "run" if number == 1 and not self.only else self.chance.choice(fault.actions)
        if action == "sweep" and self.benchmark == FAKE_BENCHMARK:
            action = "run"
        this = Round(self.directory / str(number), f"{os.getpid()}-{number}", self.server, self.front, self.chance)
        self.current = this
        for folder in (this.directory, this.tmp):
            folder.mkdir()
        shutil.copytree(DEMO, this.corpus)
        address = fresh_store(this.directory, self.template) if name == "store locked" else self.front.address
        direct = address if name == "store locked" else self.server.address
        connect(direct).create_experiment(this.token)
        shared = segments()
        offline = (
            [result_in(this.results, contents_of(), Origin(this.token)).id for _ in range(3)]
            if action == "upload"
            else []
        )
        started = time.monotonic()
        problems: list[str] = []
        this.process = self.start(this, self.command(this, action), address)
        try:
            self.wait_for_the_moment(this, action)
            moment, kept = time.monotonic() - started, count(this.results)
            broken = this.process.poll() is None
            if broken:
                with contextlib.suppress(ProcessLookupError):
                    fault.cause(this)
            problems += self.end_of(this)
        finally:
            fault.mend(this)
        status = this.process.returncode
        if name == "nothing" and action == "run":
            self.typical = time.monotonic() - started
        allowed = fault.statuses | ({1} if action in ("sweep", "launcher") else set()) if broken else {0}
        if status not in allowed:
            problems.append(f"status {status}, expected {sorted(allowed)}")
        problems += gone(this)
        client = connect(direct)
        close_stale_runs(client)
        problems += self.recover(this, action, direct)
        problems += left_behind(this, shared)
        kept_for_sure = 0 if name == "results removed" else kept
        try:
            problems += self.look(this, action, status, client, kept=kept_for_sure, offline=offline)
        except Exception as error:  # what cannot be read is lost, and the soak continues
            problems.append(f"lost: {type(error).__name__}: {error!s:.300}")
        self.rounds.append((name, problems))
        when = f"at {moment:5.1f} s" if broken else "too late  "
        print(
            f"#{number:<3} {action:8} {name:20} {when} status {status:4}  {kept:3} kept  {'; '.join(problems) or 'ok'}",
            flush=True,
        )
        if not problems:
            shutil.rmtree(this.directory)

    def command(self, this: Round, action: str) -> list[str]:
        options = {
            "model": "demo",
            "corpus": str(this.corpus),
            "results_dir": str(this.results),
            "repeats": str(REPEATS),
        }
        if action == "upload":
            return [*command("upload"), "--bundles", str(this.results)]
        if action == "launcher":
            words = [word for key, value in options.items() for word in ("-P", f"{key}={value}")]
            return [sys.executable, "-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", *words]
        if action == "sweep":
            options = {
                **{"model": "demo", "max_num_seqs": "32,64", "corpus": str(this.corpus)},
                "results_dir": str(this.results),
            }
        return [*(command("sweep") if action == "sweep" else self.benchmark), *words_of(options)]

    def start(self, this: Round, words: Sequence[str], address: str) -> subprocess.Popen[bytes]:
        environment = {
            **python_path(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_EXPERIMENT_NAME": this.token,
            "FAKE_ENGINE_DELAY_SECONDS": self.delay,
            "TMPDIR": str(this.tmp),
            MARK: this.token,
        }
        with (this.directory / "out.log").open("ab") as log:
            return subprocess.Popen(
                words,
                cwd=PROJECT,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_for_the_moment(self, this: Round, action: str) -> None:
        """Anywhere in the command, or (every second time) while it transcribes."""
        assert this.process is not None
        deadline = time.monotonic() + self.chance.uniform(
            0, {"upload": 8.0, "sweep": 2 * self.typical}.get(action, self.typical)
        )
        if action != "upload" and self.chance.random() < 0.5:
            while this.process.poll() is None and not count(this.results):
                time.sleep(0.1)
            deadline = time.monotonic() + self.chance.uniform(0, 10)
        while this.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def end_of(self, this: Round) -> Iterator[str]:
        assert this.process is not None
        try:
            this.process.wait(self.limit)
        except subprocess.TimeoutExpired:
            yield f"hung for {self.limit:.0f} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(this.process.pid, signal.SIGKILL)
            this.process.wait()

    def recover(self, this: Round, action: str, address: str) -> Iterator[str]:
        """Start the sweep again, and upload what was not logged."""
        again = [self.command(this, "sweep")] if action == "sweep" else []
        if this.results.is_dir() and unlogged_bundles(this.results):
            again.append(self.command(this, "upload"))
        for words in again:
            process = self.start(this, words, address)
            try:
                if process.wait(self.limit):
                    yield f"status {process.returncode} of {words[2:4]} in recovery"
            except subprocess.TimeoutExpired:
                process.kill()
                yield f"hung in recovery: {words[2:4]}"

    def look(
        self, this: Round, action: str, status: int, client: Any, *, kept: int, offline: Sequence[str]
    ) -> Iterator[str]:
        """Every finished utterance is there once, every result on the server once, every run has its status."""
        complete = list(offline)
        for directory in sorted(this.results.glob("*")) if this.results.is_dir() else []:
            with contextlib.suppress(BundleError):
                found = [(each.repeat, each.utt_id) for each in read_journal(directory)]
                if len(set(found)) < len(found):
                    yield f"twice on disk: {len(found) - len(set(found))} utterances in {directory.name}"
            whole = (directory / BUNDLE_FILE).is_file() and not directory.name.endswith(
                PARTIAL
            )  # as an upload looks at it
            if whole and directory.name not in complete:
                complete.append(read_bundle(directory).id)
        if count(this.results) < kept:
            yield f"lost on disk: {kept - count(this.results)} utterances"
        experiment = client.get_experiment_by_name(this.token).experiment_id
        runs = [run for run in all_runs(client) if run.info.experiment_id == experiment]
        if running := [run.info.run_name for run in runs if run.info.status == "RUNNING"]:
            yield f"status RUNNING: {', '.join(running)}"
        runs = [run for run in runs if run.data.tags.get(KIND) == "benchmark"]
        logged = collections.Counter(run.data.tags.get(BUNDLE_TAG) for run in runs if run.info.status == "FINISHED")
        if lost := [name for name in complete if not logged[name]]:
            yield f"lost on the server: {', '.join(lost)}"
        if twice := [name for name, times in logged.items() if times > 1]:
            yield f"twice on the server: {twice}"
        for run in runs:
            if run.info.status == "FINISHED" and action != "upload":
                yield from self.whole(client, run, this)
        if action in ("run", "launcher"):
            wrong = [run.info.status for run in runs if status in RIGHT and run.info.status not in RIGHT[status]]
            if wrong or (status == 0 and len(runs) != 1):
                yield f"status {status}, but its run is {wrong or 'missing'}"
        elif action == "sweep" and sum(logged.values()) != 2:
            yield f"lost: {sum(logged.values())} of 2 configurations are finished"

    @staticmethod
    def whole(client: Any, run: Any, this: Round) -> Iterable[str]:
        with tempfile.TemporaryDirectory(dir=this.directory) as folder:
            text = Path(client.download_artifacts(run.info.run_id, "transcripts.json", folder)).read_text("utf-8")
        table = json.loads(text)
        utterances = [row[table["columns"].index("utt_id")] for row in table["data"]]
        if len(utterances) != CLIPS or len(set(utterances)) != CLIPS:
            yield f"lost in run {run.info.run_id}: {len(set(utterances))} of {CLIPS} utterances, {len(utterances)} rows"

    def summary(self) -> str:
        """A row per fault: rounds, and problems by kind."""
        lines = [f"| fault | rounds | {' | '.join(PROBLEMS)} |", f"|---|--:|{'--:|' * len(PROBLEMS)}"]
        for name in [*FAULTS, "all"]:
            of_it = [problems for fault, problems in self.rounds if name in (fault, "all")]
            figures = [sum(problem.startswith(kind) for problems in of_it for problem in problems) for kind in PROBLEMS]
            lines.append(f"| {name} | {len(of_it)} | {' | '.join(map(str, figures))} |")
        return "\n".join(lines)


def count(results: Path) -> int:
    """Whole lines in every journal and bundle."""
    found = 0
    for path in results.glob(f"*/{TRANSCRIPTS}"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            found += path.read_bytes().count(b"\n")
    return found


def gone(this: Round) -> Iterator[str]:
    """No process of the round is left; what is gets killed."""
    wait_for_none(lambda: [str(process.pid) for process in this.family()], GONE_SECONDS)
    for process in this.family():
        with contextlib.suppress(psutil.Error):
            yield f"left: process {process.pid} {' '.join(process.cmdline())[-80:]}"
            process.kill()


def left_behind(this: Round, segments_before: set[str]) -> Iterator[str]:
    """Files in TMPDIR, and new segments of shared memory that no living process has mapped."""
    if files := files_in(this.tmp):
        yield f"left: {len(files)} files in TMPDIR, {files[0]} for one"
    if unused := unused_segments(segments_before):
        yield f"left: {len(unused)} segments in /dev/shm, {min(unused)} for one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("real", "fake"), default="real")
    parser.add_argument("--fault", choices=FAULTS, help="only this one")
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in the background, and what is started inherits it
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(directory, options.seed, options.engine, options.fault)
    deadline, number = time.monotonic() + 60 * options.minutes, 0
    try:
        while time.monotonic() < deadline:
            number += 1
            soak.play(number)
    finally:
        soak.close()
        print(f"\n{soak.summary()}")
    if any(problems for _, problems in soak.rounds):
        sys.exit(f"kept for a look: {directory}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
