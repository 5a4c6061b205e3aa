"""The sweep command with a benchmark that measures nothing, for tests that kill it.

`python -m tests.support.fake_sweep sweep --model …` starts `python -m tests.support.fake_sweep benchmark --model …`
for each configuration.  That one behaves as its settings ask for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click

from tests.support.stores import run_of
from whisperbench.cli.options import command
from whisperbench.cli.sweep import run as run_sweep
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.hardware import detect_hardware, engine_version
from whisperbench.errors import EngineError
from whisperbench.preparation import checked_corpus
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.progress import Listener
from whisperbench.results.keys import speed_key
from whisperbench.results.names import DATASET_DIGEST, SPEED_KEY
from whisperbench.results.record import RunRecord
from whisperbench.results.run_name import run_name
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import log_now
from whisperbench.tracking.tracked_run import tracked_run

SECONDS_VARIABLE = "FAKE_BENCHMARK_SECONDS"
ENGINE_VARIABLE = "FAKE_ENGINE_SLEEPS"  # seconds that the fake engine process would live, and what it is found by
OUT_OF_MEMORY, KILLED_BY_THE_SYSTEM, SLOW, PAUSES = 7, 9, 11, 13  # max_num_seqs that end otherwise


@command(SweepConfig, None)
def sweep(config: SweepConfig) -> None:
    run_sweep(config, (sys.executable, "-m", "tests.support.fake_sweep", "benchmark"))


@command(BenchmarkConfig, None)
def benchmark(config: BenchmarkConfig) -> None:
    client = connect()
    with tracked_run(client, run_name(config, detect_hardware())) as run, kill_children_on_exit():
        # Like an engine: a process of its own, in this one's group.
        engine = subprocess.Popen(["sleep", os.environ.get(ENGINE_VARIABLE, "600")])
        if config.max_num_seqs == OUT_OF_MEMORY:
            raise EngineError("CUDA out of memory: 12 GiB wanted, 3 GiB free.")
        if config.max_num_seqs == KILLED_BY_THE_SYSTEM:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600 if config.max_num_seqs == SLOW else float(os.environ.get(SECONDS_VARIABLE, "0")))
        made = measured(config)
        log_now(client, run.run_id, params=made.params, metrics=made.metrics, tags=made.tags)
        engine.kill()
        if config.max_num_seqs == PAUSES:
            raise EngineError("the speed was not measured: the engine made no progress for 34 s")


def measured(config: BenchmarkConfig) -> RunRecord:
    """What the real one would log, as far as a sweep and its leaderboard look at it; 2 reqs/sec per sequence."""
    hardware, corpus = detect_hardware(), checked_corpus(config, Listener())
    return run_of(
        config,
        gpu=hardware.gpu_name,
        dataset=corpus.digest,
        rate=2.0 * config.max_num_seqs,
        params={"engine_version": engine_version(config.engine) or "", "model_revision_resolved": ""},
        metrics={"wall_seconds": 600.0, "engine_load_seconds": 60.0, "utterances": float(len(corpus.utterances))},
        tags={DATASET_DIGEST: corpus.digest, SPEED_KEY: speed_key(config, corpus.digest, hardware)},
    )


main = click.Group("main", {"sweep": sweep, "benchmark": benchmark})

if __name__ == "__main__":
    main()
