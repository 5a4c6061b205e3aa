"""What thinned padding does to the texts: a sweep of `padding_stride` with real weights, each against all positions.

The product's own sweep, which measures only what it has not finished yet, and the paired test of its texts.  The
figures go to one JSON file that `benchmarks.frontier` draws.

    python -m benchmarks.padding_accuracy --models large-v3,large-v3-turbo --corpus librispeech
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from benchmarks.bench import COMMIT, RESULTS, slug
from tests.support.options import sweep_of
from whisperbench.cli import sweep
from whisperbench.cli.options import Command
from whisperbench.compare.paired_tests import paired_test
from whisperbench.config.sweep import SweepConfig
from whisperbench.files import cache_directory
from whisperbench.results.names import CONFIG_DIGEST
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import PairedTest
from whisperbench.sweep.grid import configurations_of
from whisperbench.tracking.client import connect
from whisperbench.tracking.read import read_transcripts
from whisperbench.tracking.sweep_runs import FinishedRun, current_experiment, finished_child_runs

NAMES = {"demo": "tiny.en"}
STRIDES = "1,4,8,16,32,64"
FACTS = (
    "gpu_name", "gpu_count", "engine", "padding_stride", "engines_per_gpu", "mel_device_effective", "vllm_version",
    "torch_version", "dtype_effective", "kv_cache_dtype", "max_num_seqs", "load_format",
)  # fmt: skip
METRICS = (
    "reqs_per_sec", "client_cpu_seconds", "wer", "wer_ci_low", "wer_ci_high", "substitutions", "deletions",
    "insertions", "reference_words", "utterances", "repetition_loops", "retried_windows",
)  # fmt: skip


@click.command(cls=Command, help=__doc__)
@click.option("--models", default="demo", show_default=True, help="As the sweep takes them; they need their weights.")
@click.option("--corpus", default="librispeech", show_default=True, help="As the sweep takes it, with transcripts.")
@click.option("--strides", default=STRIDES, show_default=True, help="1 is what the others are held against.")
@click.option("--max-num-seqs", default="128", show_default=True)
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def main(models: str, corpus: str, strides: str, max_num_seqs: str, output: Path) -> None:
    options = sweep_of(model=models, corpus=corpus, padding_stride=strides, max_num_seqs=max_num_seqs)
    sweep.run(options)
    found = rows(options)
    path = output / f"{slug(found[0]['gpu_name'])}-padding-accuracy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": found}, indent=1) + "\n", encoding="utf-8")


def rows(options: SweepConfig) -> list[dict[str, Any]]:
    """One row per configuration, of its newest run: facts, metrics and the test against its model's stride 1."""
    client = connect()
    newest = {
        run.tags.get(CONFIG_DIGEST): run for run in finished_child_runs(client, current_experiment(client) or "0")
    }
    runs = [newest[config.digest] for config in configurations_of(options) if config.digest in newest]
    texts = read_transcripts(client, [run.run_id for run in runs], cache_directory() / "transcripts")
    whole = {run.params["model"]: texts[run.run_id] for run in runs if run.params["padding_stride"] == "1"}
    return [row(run, texts[run.run_id], whole.get(run.params["model"])) for run in runs]


def row(run: FinishedRun, texts: StoredTranscripts | None, whole: StoredTranscripts | None) -> dict[str, Any]:
    """`against_1`: WER less that of all positions, in points, its 95 % limits and p-value, and texts that are equal."""
    found = {
        "model": NAMES.get(run.params["model"], Path(run.params["model"]).name),
        **{name: run.params[name] for name in FACTS if name in run.params},
        "commit": run.tags.get(COMMIT),
        **{name: round(run.metrics[name], 3) for name in METRICS if name in run.metrics},
    }
    test = paired_test(texts, whole, int(run.params["seed"])) if texts is not whole else None
    if isinstance(test, PairedTest) and texts and whole:
        said = {utterance.utt_id: utterance.hypothesis for utterance in whole}
        equal = sum(said[utterance.utt_id] == utterance.hypothesis for utterance in texts)
        figures = {name: round(value, 3) for name, value in dataclasses.asdict(test).items()}
        found["against_1"] = {**figures, "equal_texts": equal}
    return found


if __name__ == "__main__":
    main()
