"""What a comparison leaves for people: tables, and pages with clips to listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_compare import LARGE, TURBO, run_flow
from tests.support.stores import log, run_of, spoken
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.tracking.read import read_clips


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_project_run: None
) -> None:
    """Results and cache are in tmp_path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def hold_clip(client: Any, run_id: str, directory: Path, name: str, size: int = 4) -> None:
    (directory / name).write_bytes(b"RIFF".ljust(size, b"."))
    client.log_artifact(run_id, str(directory / name), "samples")


class TestTables:
    def test_a_table_where_it_is_asked_for(self, client: Any) -> None:
        """No markdown then; and costs by the prices given, with a warning where one is of no GPU."""
        for config, rate in ((LARGE, 40.0), (TURBO, 80.0)):
            log(client, run_of(config, rate=rate))
        result = run_flow(format="table", sort="cost", prices="H100=2.96,A10=1", published="none")
        assert "|" not in result.stdout
        cheapest = next(line for line in result.stdout.splitlines() if line.startswith("large-v3"))
        assert (cheapest.split()[0], cheapest.split()[-1]) == ("large-v3-turbo", "0.500")
        assert "no run was measured on 'A10'" in result.stderr

    def test_published_results_are_those_of_what_was_measured(self, client: Any) -> None:
        """Unless all are asked for, or none."""
        log(client, run_of(BenchmarkConfig(model="base"), gpu="NVIDIA A10"))
        counts = {
            wanted: run_flow(published=wanted, full="true").stdout.count("](https://github.com/")
            for wanted in ("matching", "all", "none")
        }
        assert counts == {"matching": 6, "all": 20, "none": 0}


class TestClips:
    def test_the_worst_of_the_first_row(self, client: Any, tmp_path: Path) -> None:
        """Utterances with errors that the run holds as samples, most errors first."""
        run_id = log(client, run_of(LARGE, wer=2.0), spoken([0, 1, 5, 2]))
        log(client, run_of(TURBO, wer=9.0, interval=(8, 10)), spoken([1] * 4))
        for name in ("01_u0002.wav", "02_u0001.wav", "03_u0000.wav"):
            hold_clip(client, run_id, tmp_path, name)
        assert run_flow().exit_code == 0
        page = (tmp_path / "results" / "leaderboard.html").read_text()
        heard = [part.partition('"')[0] for part in page.split('aria-label="Audio of ')[1:]]
        assert heard == ["u0002", "u0001"]

    def test_changed_utterances_can_be_heard(self, client: Any, tmp_path: Path) -> None:
        """As far as a run holds them as samples; the page's policy lets them play."""
        ids = [log(client, run_of(c), spoken(errors)) for c, errors in ((LARGE, [0, 1]), (TURBO, [3, 1]))]
        hold_clip(client, ids[1], tmp_path, "01_u0000.wav")
        assert run_flow(runs=",".join(ids)).exit_code == 0
        page = (tmp_path / "results" / "difference.html").read_text()
        assert page.count("<audio") == page.count("data:audio/wav;base64,UklGRg==") == 1
        assert "media-src data:" in page

    def test_a_page_stays_small(self, client: Any, tmp_path: Path) -> None:
        """Ten clips and 5 MB at most: a clip that has no room is passed over."""
        run_id = log(client, run_of(LARGE), spoken([1] * 12))
        for number in range(12):
            size = 4_995_000 if number == 1 else 9_000
            hold_clip(client, run_id, tmp_path, f"{number:02d}_u{number:04d}.wav", size)
        ids = [f"u{number:04d}" for number in range(12)]
        assert list(read_clips(client, [run_id], ids, tmp_path / "kept")) == [ids[0], *ids[2:11]]
