"""Results as a benchmark leaves them, made without measuring; and what a run holds, to compare it with another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.measure.result import UtteranceResult
from whisperbench.progress import Listener
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.names import KIND, SCHEMA, SCHEMA_TAG
from whisperbench.results.recording import Journal, write_bundle
from whisperbench.results.run_info import Dataset, RunData

CONFIG = BenchmarkConfig(model="demo", corpus="demo")
DATASET = Dataset("demo", "all", "d" * 32, "demo", 8)


def result(number: int, hypothesis: str = "a word", **changes: Any) -> UtteranceResult:
    """The result of utterance u0000, u0001, …."""
    found = UtteranceResult(
        utt_id=f"u{number:04d}",
        hypothesis=hypothesis,
        tokens=2,
        seconds=2.0,
        windows=1,
        latency_seconds=0.1,
        reference="a word",
        speaker="s1",
    )
    return dataclasses.replace(found, **changes)


def journal_in(results_dir: Path, origin: Origin | None = None) -> Journal:
    config = dataclasses.replace(CONFIG, results_dir=str(results_dir))
    return Journal(config, origin or Origin(), "a machine\n", Listener())


def contents_of(name: str = "demo-auto-128", wer: float = 2.5, **changes: Any) -> RunData:
    """One run's params, metrics, history of three repeats, and tags."""
    contents = RunData(
        name=name,
        params={**CONFIG.as_params(), "model_id": "demo", "gpu_name": "Fake CPU"},
        metrics={"wer": wer, "reqs_per_sec": 41.0},
        history={"reqs_per_sec": [40.0, 41.0, 42.0]},
        tags={KIND: "benchmark", SCHEMA_TAG: SCHEMA, "whisperbench.signature": "model=demo|n=all"},
        dataset=DATASET,
        description="`WER: 2.50`\n",
        started_ms=1_790_000_000_000,
        ended_ms=1_790_000_060_000,
    )
    return dataclasses.replace(contents, **changes)


def result_in(
    results_dir: Path,
    contents: RunData | None = None,
    origin: Origin | None = None,
    transcripts: Mapping[int, str] | None = None,
) -> Bundle:
    """A complete bundle of a few small files."""
    said = transcripts or {0: "a word", 1: "another word"}
    with journal_in(results_dir, origin) as journal:
        for number, text in said.items():
            journal.append(result(number, text))
        table = {"columns": ["utt_id", "hypothesis"], "data": [[f"u{n:04d}", text] for n, text in said.items()]}
        (journal.artifacts / "transcripts.json").write_text(json.dumps(table), encoding="utf-8")
        (journal.artifacts / "samples").mkdir()
        (journal.artifacts / "samples" / "samples.html").write_text("<p>", encoding="utf-8")
        return write_bundle(bundle_of(journal, contents))


def bundle_of(journal: Journal, contents: RunData | None = None) -> Bundle:
    """An unwritten bundle in the directory of a journal."""
    return Bundle(id=journal.id, origin=journal.origin, contents=contents or contents_of(), directory=journal.directory)


def held_by(client: Any, run_id: str, download_to: Path) -> dict[str, Any]:
    """Everything that a run holds: params, metrics with histories, tags, data sets, and artifacts byte by byte."""
    run = client.get_run(run_id)
    download_to.mkdir(parents=True, exist_ok=True)
    folder = Path(client.download_artifacts(run_id, "", str(download_to)))
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": dict(run.data.params),
        "metrics": {
            name: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, name))
            for name in run.data.metrics
        },
        "last metrics": dict(run.data.metrics),
        "tags": dict(run.data.tags),
        "data sets": [
            (i.dataset.name, i.dataset.digest, i.dataset.source, i.dataset.profile) for i in run.inputs.dataset_inputs
        ],
        "artifacts": {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()},
    }
