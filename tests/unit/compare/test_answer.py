"""The short answer of a comparison: the best choices in one sentence, and the best setting of each model and GPU."""

from __future__ import annotations

import dataclasses
import io

import pytest
import rich.console

from tests.support.many_runs import PRICES, many_runs
from tests.support.reports import A10, BASE, LARGE, TURBO, board_of, report_of
from tests.support.stores import H100, run_of, spoken
from whisperbench.cli.report_table import printer
from whisperbench.compare.answer import short_gpu_names
from whisperbench.compare.document import Heading, Table
from whisperbench.compare.report import Report
from whisperbench.compare.select import priced
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import CompareConfig


def printed(report: Report, width: int) -> list[str]:
    console = rich.console.Console(file=io.StringIO(), width=width, highlight=False, _environ={})
    printer("table", console)(report.answer)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def table_of_answer(report: Report) -> Table:
    (table,) = (part for part in report.answer if isinstance(part, Table))
    return table


def sentence_of(report: Report) -> str:
    found = report.answer[1]
    assert isinstance(found, str)
    return found


@pytest.fixture(scope="module")
def sixty_four() -> dict[str, Report]:
    """Reports of the synthetic store with prices, without prices, and with GPUs that have long names."""
    runs = many_runs()
    transcripts = {run.run_id: text for run, text in runs}
    prices = CompareConfig(prices=PRICES).price_of
    crowd = [
        run_of(BenchmarkConfig(model=model), gpu=f"NVIDIA RTX PRO {n}000 Blackwell Server Edition", rate=10.0 + n)
        for model in ("large-v3-turbo", "large-v3", "distil-large-v3.5", "medium.en")
        for n in range(1, 9)
    ]
    return {
        "prices": report_of(*(priced(run, prices) for run, _ in runs), transcripts=transcripts),
        "no prices": report_of(*(run for run, _ in runs), transcripts=transcripts),
        "crowd": report_of(*crowd),
    }


class TestScreen:
    @pytest.mark.parametrize(("store", "heading"), [("prices", "¢/hour"), ("no prices", "reqs/s"), ("crowd", "reqs/s")])
    def test_it_fits_on_a_screen(self, sixty_four: dict[str, Report], store: str, heading: str) -> None:
        """At most 20 lines that are not wrapped, with model, GPU, setting, WER and the sort column."""
        for width in (80, 120):
            lines = printed(sixty_four[store], width)
            assert len(lines) <= 20
            assert max(map(len, lines)) <= width
            (head,) = (line for line in lines if line.startswith("model"))
            assert {"GPU", "setting", "WER", heading} <= set(head.split())
            assert ("more rows" in " ".join(lines)) is (store == "crowd")

    def test_the_cheapest_comes_first_if_prices_are_known(self, sixty_four: dict[str, Report]) -> None:
        """One row per model and GPU, each with its best setting at equal accuracy, which is not stride 64."""
        table = table_of_answer(sixty_four["prices"])
        cost = [float(str(row[list(table.headings).index("¢/hour")])) for row in table.rows]
        assert cost == sorted(cost)
        assert len({tuple(row[:2]) for row in table.rows}) == len(table.rows) == 8
        assert {row[2] for row in table.rows} == {"fp8 seqs256 stride16"}
        accuracy = list(table.headings).index("accuracy")
        found = {(row[0], str(row[accuracy]).split(" (")[0]) for row in table.rows}
        assert found == {("large-v3", "same"), ("large-v3-turbo", "worse")}

    def test_without_prices_the_fastest_comes_first(self, sixty_four: dict[str, Report]) -> None:
        """Energy stands in the place of the cost."""
        table = table_of_answer(sixty_four["no prices"])
        assert table.rows[0][:3] == ["large-v3-turbo", "H200", "fp8 seqs256 stride16"]
        assert "Wh/hour" in table.headings
        rates = [str(row[list(table.headings).index("reqs/s")]) for row in table.rows]
        assert all("(±" in rate for rate in rates)

    def test_the_sentence_names_the_choices(self, sixty_four: dict[str, Report]) -> None:
        """Cheapest, fastest and most accurate, each with its figure."""
        sentence = sentence_of(sixty_four["prices"])
        assert sentence.startswith("Cheapest is large-v3-turbo on L40S (0.0")
        assert "fastest is large-v3-turbo on H200 (317.4 requests/s); " in sentence
        assert "most accurate is large-v3 (2.2" in sentence
        assert "; cheapest with that accuracy is large-v3 on L40S (0." in sentence
        assert "no difference" not in sentence


class TestSentence:
    def test_what_the_noise_does_not_separate(self) -> None:
        """Two GPUs within the noise, and models without a shown difference in accuracy."""
        runs = [run_of(LARGE, rate=40.0 + r, gpu=gpu, wer=5.0) for gpu in (H100, A10) for r in (0.0, 0.4)]
        runs += [run_of(TURBO, rate=60.0 + r, gpu=A10, wer=5.0) for r in (0.0, 0.4)]
        transcripts = {run.run_id: spoken([1] * 80) for run in runs}
        sentence = sentence_of(report_of(*runs, transcripts=transcripts))
        assert sentence.startswith("Fastest is large-v3-turbo on A10 (60.20 requests/s); most accurate is large-v3")
        assert "with no difference shown to" in sentence
        alike = sentence_of(report_of(*runs[:4], transcripts=transcripts))
        assert ", which the noise does not separate from large-v3 on " in alike

    def test_single_runs_have_no_noise(self) -> None:
        """The sentence states it."""
        sentence = sentence_of(report_of(run_of(LARGE, rate=40.0), run_of(LARGE, rate=41.0, gpu=A10)))
        assert sentence.startswith("Fastest is large-v3 on A10 (41.00 requests/s), measured once;")

    def test_one_choice_may_be_best_twice(self) -> None:
        """It is named once with both figures."""
        runs = [run_of(LARGE, rate=rate, metrics={"usd_per_audio_hour": 0.1 / rate}) for rate in (40.0, 40.1)]
        sentence = sentence_of(report_of(*runs))
        assert "Cheapest and fastest is large-v3 on H100 (0.250 ¢ per audio hour, 40.05 requests/s)" in sentence

    def test_the_most_accurate_choice_without_a_rate(self) -> None:
        """Only accuracy is named if nothing else was measured; a choice without a rate is not the fastest."""
        accuracy = "ost accurate is large-v3 (2.00 % WER), with no difference shown to large-v3-turbo."
        report = report_of(run_of(LARGE, rate=None, wer=2.0), run_of(TURBO, rate=None, wer=3.0))
        assert sentence_of(report) == f"M{accuracy}"
        assert [row[0] for row in table_of_answer(report).rows] == ["large-v3", "large-v3-turbo"]
        report = report_of(run_of(LARGE, rate=None, wer=2.0), run_of(TURBO, wer=3.0))
        assert sentence_of(report) == f"Fastest is large-v3-turbo on H100 (40.00 requests/s); m{accuracy}"


class TestRows:
    def test_it_names_its_data(self) -> None:
        """The heading comes first; the last line has the number of runs and where the rest is."""
        report = report_of(run_of(LARGE), run_of(TURBO))
        first, *_, last = report.answer
        assert isinstance(first, Heading)
        assert first.cells == ["Whisper leaderboard: librispeech test-clean, 2,620 utterances"]
        assert last == "2 runs compared, 0 left out. All settings: --full, leaderboard.html."

    def test_it_follows_sort(self) -> None:
        """By energy the most economical comes first, and its column is shown although costs are known."""
        costs = ((LARGE, 2.0, 0.01), (TURBO, 1.0, 0.02))
        runs = [run_of(c, metrics={"energy_wh_per_audio_hour": wh, "usd_per_audio_hour": usd}) for c, wh, usd in costs]
        report = report_of(*runs, sort="energy")
        assert [row[0] for row in table_of_answer(report).rows] == ["large-v3-turbo", "large-v3"]
        assert "Wh/hour" in table_of_answer(report).headings
        sentence = sentence_of(report)
        assert sentence.startswith("Cheapest is large-v3 on H100 (1.000 ¢ per audio hour)")
        assert (
            "fastest and most economical is large-v3-turbo on H100 (40.00 requests/s, 1.00 Wh per audio hour)"
            in sentence
        )

    def test_less_accurate_settings_are_left_out(self) -> None:
        """A faster setting that is shown to be worse, or whose WER is more than the margin higher."""
        fast = dataclasses.replace(LARGE, padding_stride=64)
        runs = [run_of(LARGE, wer=5.0), run_of(fast, wer=10.0, rate=90.0)]
        errors = {runs[0].run_id: spoken([1] * 400), runs[1].run_id: spoken([2] * 400)}
        for transcripts in (errors, None):
            (row,) = table_of_answer(report_of(*runs, transcripts=transcripts)).rows
            assert row[2] == "default settings"
        elsewhere = run_of(fast, wer=10.0, rate=9.0, gpu=A10)
        rows = table_of_answer(report_of(*runs, elsewhere)).rows
        assert [tuple(row[1:3]) for row in rows] == [("H100", "default settings"), ("A10", "stride64")]

    def test_characters_have_a_cer(self) -> None:
        """In languages without blanks the CER stands in the place of the WER."""
        runs = [run_of(c, wer=None, metrics={"cer": cer}) for c, cer in ((LARGE, 5.0), (TURBO, 6.0))]
        report = report_of(*runs)
        assert "most accurate is large-v3 (5.00 % CER)" in sentence_of(report)
        assert "CER %" in table_of_answer(report).headings
        assert "WER %" not in table_of_answer(report).headings

    def test_names_of_gpus_are_short_and_different(self) -> None:
        """Up to the first word with a digit; two GPUs that would look alike keep more of their names."""
        names = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "AMD EPYC 7763 64-Core")
        four = run_of(dataclasses.replace(BASE, gpus=4), params={"gpu_count": "4"})
        board = board_of(four, *(run_of(BASE, gpu=gpu) for gpu in names))
        assert set(short_gpu_names(board).values()) == {"H100", "4 × H100", *names[1:3], "AMD EPYC 7763"}
