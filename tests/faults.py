"""Every fault that the suite causes, by kind: the README's table is written from the tests themselves.

python -m tests.faults            the table
python -m tests.faults --list     every case under its kind
python -m tests.faults --write    the table into README.md, where it stands between its two marks

A kind is a list of patterns over test names (`file::class::test`); each case of a parametrised test is a fault of its
own.  What a test makes of chance (Hypothesis) or of what is odd but allowed is not counted.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
BLOCK = re.compile(r"(?<=<!-- python -m tests\.faults --write -->\n).*?(?=<!-- end -->)", re.DOTALL)

KINDS: dict[str, Sequence[str]] = {
    "server, network": (
        "tests/flows/test_faults.py::TestServerKilled::*",
        "tests/flows/test_faults.py::test_every_request_cut_in_turn",
        "tests/flows/test_faults.py::test_one_lost_connection*",
        "tests/flows/test_upload.py::TestErrors::test_*server*",
        "tests/flows/test_upload.py::test_a_deleted_run_stays_deleted",
        "tests/flows/test_upload.py::test_two_uploads_at_once",
        "tests/flows/test_compare.py::TestBadInput::*",
        "tests/flows/test_doctor.py::TestTracking::test_no_server",
        "tests/tracking/test_server.py::test_an_anonymous*",
        "tests/tracking/test_server.py::test_a_wrong_password",
        "tests/tracking/test_server.py::test_host_names",
        "tests/tracking/test_tracking.py::TestPreflight::test_a_schema*",
        "tests/tracking/test_tracking.py::TestPreflight::test_a_server_that_is_down*",
        "tests/tracking/test_tracking.py::TestPreflight::test_artifacts*",
        "tests/tracking/test_tracked_run.py::test_a_server_that_is_gone*",
        "tests/tracking/test_limits.py::*",
        "tests/tracking/test_live.py::test_a_server*",
        "tests/tracking/test_home.py::TestDescription::test_a_server_that_refuses*",
        "tests/tracking/test_sqlite_store.py::*database*",
        "tests/tracking/test_sqlite_store.py::*lock*",
        "tests/tracking/test_sqlite_store.py::*may_not_be_written*",
        "tests/tracking/test_sqlite_store.py::*three_at_once*",
        "tests/tracking/test_mlflow_run.py::test_two_first*",
        "tests/tracking/test_sqlite_store.py::test_compare_ends_with_3",
    ),
    "disk": (
        "tests/flows/test_faults.py::test_disk_full*",
        "tests/results/test_bundle.py::TestFullDisk::*",
        "tests/inputs/test_checkpoint.py::test_a_cache_that_cannot_be_written*",
        "tests/inputs/test_checkpoint.py::test_a_conversion_that_fails*",
        "tests/flows/test_compare.py::TestBadInput::test_results_that_cannot_be_written",
        "tests/flows/test_doctor.py::TestDisk::test_no_room",
        "tests/test_install.py::test_too_little_room",
    ),
    "kill, signal": (
        "tests/flows/test_faults.py::TestClientKilled::*",
        "tests/flows/test_faults.py::TestSignals::*",
        "tests/flows/test_sweep.py::TestKilled::*",
        "tests/supervise/test_orphans.py::*",
        "tests/supervise/test_process_group.py::TestCommand::*left",
        "tests/supervise/test_process_group.py::TestCommand::*sigterm",
        "tests/supervise/test_process_group.py::TestCommand::*raises*",
        "tests/supervise/test_signals.py::TestSignals::*end*",
        "tests/supervise/test_signals.py::TestSignals::test_nohup",
        "tests/supervise/test_signals.py::TestSignals::test_once*",
        "tests/supervise/test_signals.py::TestLauncher::*death*",
        "tests/supervise/test_signals.py::TestLauncher::*gone*",
        "tests/supervise/test_watch.py::test_one_of_several*",
        "tests/supervise/test_leftovers.py::test_segments_of_the_dead",
        "tests/flows/test_parallel.py::test_no_process*",
        "tests/tracking/test_mlflow_run.py::*killed*",
        "tests/tracking/test_tracked_run.py::test_*killed*",
        "tests/tracking/test_tracked_run.py::test_a_signal*",
        "tests/tracking/test_tracking.py::TestStatus::test_runs_of_dead*",
    ),
    "engine": (
        "tests/flows/test_engine_faults.py::*",
        "tests/flows/test_peer_faults.py::*",
        "tests/flows/test_sweep.py::TestFailures::*",
        "tests/engines/test_feed.py::test_a_model_that_dies*",
        "tests/engines/test_settings_and_start.py::test_*start*",
        "tests/engines/test_settings_and_start.py::test_*refused*",
        "tests/engines/test_vllm_watch.py::*",
        "tests/engines/test_vllm_prestart.py::test_vllms_own*",
        "tests/engines/test_pulse.py::test_a_stopped*",
        "tests/engines/test_pulse.py::test_a_start*",
        "tests/engines/test_pulse.py::test_a_pause*",
        "tests/engines/test_parallel.py::test_random_failures*",
        "tests/engines/test_parallel.py::test_a_worker_that*",
        "tests/engines/test_parallel.py::test_an_engine_that_stalls*",
        "tests/engines/test_parallel.py::test_a_failure_before*",
        "tests/engines/test_parallel.py::test_without_engines*",
        "tests/engines/test_parallel_ray.py::test_an_*",
        "tests/flows/test_parallel.py::test_an_engine_that_is_killed*",
        "tests/measure/test_clock.py::test_an_engine_that_loses*",
        "tests/engines/test_checks.py::TestVllm::test_what_another_python_says",
    ),
    "audio": (
        "tests/inputs/test_audio.py::*refused*",
        "tests/engines/test_feed.py::test_a_reader_that_fails*",
        "tests/engines/test_parallel.py::test_a_broken_file*",
        "tests/engines/test_parallel_ray.py::test_a_broken_file*",
        "tests/inputs/test_inspection.py::test_a_file_that_breaks*",
        "tests/inputs/test_inspection.py::test_inspection_names*",
        "tests/results/test_samples.py::test_loud_and_broken*",
    ),
    "corpus, transcript": (
        "tests/flows/test_benchmark.py::test_bad_input*",
        "tests/inputs/test_corpus.py::test_a_*",
        "tests/inputs/test_corpus.py::*refused",
        "tests/inputs/test_corpus.py::test_only_regular_files*",
        "tests/inputs/test_corpus.py::test_empty_references*",
        "tests/inputs/test_hostile.py::test_a*",
        "tests/inputs/test_hostile.py::test_hostile*",
        "tests/inputs/test_librispeech.py::test_*out_of_reach*",
        "tests/inputs/test_librispeech.py::test_a_part_that*",
        "tests/inputs/test_librispeech.py::test_parquet*",
        "tests/inputs/test_transcript_files.py::test_a_t*",
        "tests/inputs/test_transcript_files.py::test_ten_megabytes*",
        "tests/measure/test_score.py::*is_named",
    ),
    "checkpoint, hub": (
        "tests/inputs/test_checkpoint.py::*refused",
        "tests/inputs/test_checkpoint.py::test_an_unknown_name*",
        "tests/inputs/test_checkpoint.py::test_without_its_package*",
        "tests/inputs/test_checkpoint_download.py::*hub_that*",
        "tests/inputs/test_checkpoint_download.py::*unreachable*",
        "tests/inputs/test_checkpoint_download.py::test_what_the_hub_does_not_have*",
        "tests/inputs/test_ctranslate2_*.py::*refused*",
        "tests/inputs/test_tokenizer.py::*refused*",
        "tests/inputs/test_tokenizer.py::*must_belong*",
        "tests/inputs/test_weight_files.py::*",
    ),
    "result": (
        "tests/results/test_bundle.py::TestHostileBundles::*",
        "tests/results/test_bundle.py::TestJournal::test_a_*",
        "tests/results/test_bundle.py::TestJournal::test_nothing*",
        "tests/results/test_schema.py::test_a_wrong_value*",
        "tests/results/test_completion.py::test_a*",
        "tests/results/test_completion.py::test_o*",
        "tests/flows/test_upload.py::TestErrors::test_a_damaged*",
        "tests/flows/test_upload.py::TestErrors::test_no_bundle",
        "tests/compare/test_paired_tests.py::*what_cannot_be_paired*",
    ),
    "option, grid": (
        "tests/options/test_benchmark_options.py::test_a_bad_value*",
        "tests/options/test_record.py::test_text_that*",
        "tests/options/test_benchmark_options.py::test_fp8*",
        "tests/flows/test_*.py::*options_are_checked",
        "tests/options/test_sweep_options.py::*named*",
        "tests/sweep/test_grid.py::*named*",
        "tests/sweep/test_grid.py::*refused*",
    ),
}

SEVERAL: dict[str, int | str] = {
    "tests/flows/test_faults.py::TestClientKilled::test_at_random_moments": "CLIENT_KILLS",
    "tests/flows/test_faults.py::test_every_request_cut_in_turn": 8,  # at least: one at each request
}
"""Faults per case where a test causes more than one: a number, or the name of one in its module."""


class Collector:
    """A pytest plugin that keeps what was collected."""

    items: Sequence[Any] = ()

    def pytest_collection_finish(self, session: Any) -> None:
        self.items = session.items


def faults() -> dict[str, dict[str, int]]:
    """Kind → test case → how many faults it causes; a case counts under the first kind that names it.

    Raises:
        LookupError: a pattern names no test.
    """
    import pytest

    patterns = [(kind, pattern) for kind, those in KINDS.items() for pattern in those]
    files = {str(path) for _, pattern in patterns for path in PROJECT.glob(pattern.partition("::")[0])}
    collector = Collector()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        options = [
            "--collect-only",
            "--quiet",
            "-m",
            "not cluster",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(PROJECT),
        ]
        status = pytest.main([*options, *sorted(files)], plugins=[collector])
    if status != 0:
        raise LookupError(output.getvalue())
    found: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    used = set()
    for item in collector.items:
        name = item.nodeid.partition("[")[0]
        matching = [(kind, pattern) for kind, pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
        used.update(matching)
        if matching:
            several = SEVERAL.get(name, 1)
            found[matching[0][0]][item.nodeid] = getattr(item.module, several) if isinstance(several, str) else several
    if unused := [pattern for kind, pattern in patterns if (kind, pattern) not in used]:
        raise LookupError(f"these patterns name no test: {unused}")
    return found


def table(found: dict[str, dict[str, int]]) -> str:
    """One column per kind and one for them all."""
    counts = {kind: sum(cases.values()) for kind, cases in found.items()}
    counts["**all**"] = sum(counts.values())
    rows = (counts.keys(), ["--:"] * len(counts), map(str, counts.values()))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str]) -> None:
    found = faults()
    if "--list" in arguments:
        for kind, cases in found.items():
            print(
                kind,
                *(f"  {number} × {case}" if number > 1 else f"  {case}" for case, number in cases.items()),
                sep="\n",
            )
    if "--write" in arguments:
        README.write_text(BLOCK.sub(lambda _: table(found), README.read_text(encoding="utf-8")), encoding="utf-8")
    print(table(found), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
