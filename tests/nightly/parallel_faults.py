"""Faults of two real engines: every clip must have one transcript, the same as in a run without a fault.

    python -m tests.nightly.parallel_faults

Two engines on this machine's CPU transcribe the demo clips over and over.  In the middle an actor, an engine's process
or the driver is killed or stopped; then, with two nodes of a cluster on this host, a node.  A line is printed for each
fault; the exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.support.clusters import Cluster
from tests.support.commands import PROJECT, command, python_path, still_running, words_of
from whisperbench.results.bundle import CONTENTS, PARTIAL, read_bundle
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import TRANSCRIPTS

CLIPS, ROUNDS, BROKEN_AFTER = 8, 20, 20
LIMIT_SECONDS, GONE_SECONDS = 400, 10
STALL_MINUTES = 0.75
ACTOR, ENGINE = "ray::EngineWorker", "VLLM::EngineCore"

FAULTS = {
    "nothing": (0, None, signal.SIGCONT),
    "actor killed": (1, ACTOR, signal.SIGKILL),
    "actor stopped": (1, ACTOR, signal.SIGSTOP),
    "engine killed": (1, ENGINE, signal.SIGKILL),
    "engine stopped": (1, ENGINE, signal.SIGSTOP),
    "driver killed": (-signal.SIGKILL, "driver", signal.SIGKILL),
    "driver terminated": (128 + signal.SIGTERM, "driver", signal.SIGTERM),
    "nothing, two nodes": (0, None, signal.SIGCONT),
    "node killed": (1, "node", signal.SIGKILL),
    "node stopped": (1, "node", signal.SIGSTOP),
}
"""The exit status, the victim and its signal; the last three need a cluster."""
OF_A_CLUSTER = ("nothing, two nodes", "node killed", "node stopped")


def benchmark(results: Path, env: dict[str, str], **options: object) -> subprocess.Popen[bytes]:
    given = {
        "model": "demo", "corpus": "demo", "gpus": 2, "corpus_copies": ROUNDS, "max_num_seqs": 8, "offline": "true",
        "stall_minutes": STALL_MINUTES, "results_dir": results, **options,
    }  # fmt: skip
    with results.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([*command("benchmark"), *words_of(given)], cwd=PROJECT, env=env, stdout=log, stderr=log)


def texts_in(results: Path) -> list[tuple[str, str]]:
    """Utterance and text of every line that is on disk."""
    found = []
    for path in results.glob(f"*/{TRANSCRIPTS}"):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # the last line of one that was killed may be cut
                entry = json.loads(line)
                found.append((entry["utt_id"], entry["hypothesis"]))
    return found


def named(processes: list[psutil.Process], name: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if name in (process.name(), *process.cmdline()[:1]) or process.name().startswith(name[:15]):
                found.append(process)
    return found


def play(name: str, folder: Path, expected: dict[str, str], cluster: Cluster | None) -> Iterator[str]:
    """Cause one fault in a run, and describe every problem."""
    status, victim, _ = FAULTS[name]
    results = folder / name.replace(" ", "-").replace(",", "")
    options = {"ray_address": cluster.address} if cluster else {}
    run = benchmark(results, cluster.env if cluster else python_path(), **options)
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(texts_in(results)) < BROKEN_AFTER and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    started = processes_of(run, name, cluster)
    yield from broken(name, run, started, cluster)
    moment = time.monotonic()
    try:
        run.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        run.kill()
        yield f"hung for {LIMIT_SECONDS} s"
    ended = time.monotonic()
    if left := still_running(started, GONE_SECONDS):
        yield f"left: {[each.name() for each in left]}"
    print(f"  ended {ended - moment:.1f} s later, its processes after {time.monotonic() - ended:.1f} s more")
    if run.returncode != status:
        yield f"status {run.returncode}, not {status}: {results.with_suffix('.log').read_text()[-600:]}"
    yield from wrong_in(results, expected, lost=status == 1, complete=victim != "driver")


def processes_of(run: subprocess.Popen[bytes], name: str, cluster: Cluster | None) -> list[psutil.Process]:
    """The processes that must end with the run; those of a stopped host cannot, and are left out."""
    if run.poll() is not None:
        return []
    found = psutil.Process(run.pid).children(recursive=True)
    for node in cluster.nodes.values() if cluster else ():
        if name != "node stopped" or cluster is None or node is not cluster.nodes["second"]:
            found += [*named(node.processes(), ACTOR), *named(node.processes(), ENGINE)]
    return found


def broken(
    name: str, run: subprocess.Popen[bytes], started: list[psutil.Process], cluster: Cluster | None
) -> Iterator[str]:
    """Cause the fault; describe a victim that does not exist."""
    _, victim, number = FAULTS[name]
    if victim == "driver":
        run.send_signal(number)
    elif victim == "node" and cluster:
        cluster.nodes["second"].send(number)
    elif victim and (found := named(started, victim)):
        found[0].send_signal(number)
    elif victim:
        yield f"no process is called {victim}: {sorted({each.name() for each in started})}"


def wrong_in(results: Path, expected: dict[str, str], *, lost: bool, complete: bool) -> Iterator[str]:
    """Problems with what is on disk; `expected` learns the texts from the first run."""
    (directory, *others) = sorted(results.iterdir())
    if others:
        yield f"{len(others) + 1} results"
    texts = texts_in(results)
    if wrong := [(utt, said) for utt, said in texts if expected.setdefault(utt, said) != said]:
        yield f"{len(wrong)} other texts, {wrong[0]} for one, not {expected[wrong[0][0]]!r}"
    counts = Counter(utt for utt, _ in texts)
    if not complete:
        partial = directory.name.endswith(PARTIAL) and len(texts) >= BROKEN_AFTER
        if max(counts.values(), default=0) > ROUNDS or not partial:
            yield f"{len(texts)} texts in {directory.name}"
        return
    if counts != Counter(dict.fromkeys(expected, ROUNDS)) or len(counts) != CLIPS:
        yield f"not each text {ROUNDS} times: {counts}"
    if (directory / CONTENTS).is_file():
        yield from in_order(read_bundle(directory).contents, lost=lost)
    else:
        yield "no result"


def in_order(contents: Any, *, lost: bool) -> Iterator[str]:
    if "wer" not in contents.metrics:
        yield "no WER"
    if lost == ("reqs_per_sec" in contents.metrics):
        yield f"reqs_per_sec: {contents.metrics.get('reqs_per_sec')}"
    if lost != ("lost" in contents.tags.get(WARNINGS, "")):
        yield f"warnings: {contents.tags.get(WARNINGS)}"
    if not lost:
        print(f"  {contents.metrics['reqs_per_sec']:.2f} utterances/s, {contents.metrics['scaling_efficiency']:.0f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one; may be given again")
    wanted = parser.parse_args().fault or list(FAULTS)
    expected: dict[bool, dict[str, str]] = {}  # the nodes of the cluster have no bfloat16
    failed = False
    with tempfile.TemporaryDirectory(prefix="parallel-") as folder:
        for name in wanted:
            with contextlib.ExitStack() as stack:
                cluster = stack.enter_context(Cluster()) if name in OF_A_CLUSTER else None
                if cluster:
                    cluster.add("first")
                    cluster.add("second")
                texts = expected.setdefault(bool(cluster), {})
                problems = list(play(name, Path(folder), texts, cluster))
            failed |= bool(problems)
            print(f"{name}: {'; '.join(problems) or 'ok'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
