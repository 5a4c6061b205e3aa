"""The samples page: its utterances, audio and texts, and its resistance to hostile texts."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from whisperbench.corpus.audio import Samples
from whisperbench.measure.normalizer import normalizer_of
from whisperbench.measure.result import ErrorCounts, UtteranceResult
from whisperbench.measure.score import score
from whisperbench.results.samples import file_suffix, write_samples

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)> \x1b[2J \0 \u202etxt $page ${sections} \ud800"
VOID = {"meta", "br", "img"}


def transcript(utt_id: str, reference: str | None, hypothesis: str, seconds: float = 1.0) -> UtteranceResult:
    return UtteranceResult(
        utt_id=utt_id,
        speaker="1089",
        seconds=seconds,
        reference=reference,
        hypothesis=hypothesis,
        tokens=1,
        windows=1,
    )


def scored(*pairs: tuple[str, str]) -> tuple[UtteranceResult, ...]:
    """Utterances u0, u1, … of (reference, hypothesis) pairs."""
    return score([transcript(f"u{i}", *pair) for i, pair in enumerate(pairs)], "en").results


def tone(utt_id: str) -> Samples:
    """Half a second, with another loudness for each utterance."""
    loudness = 0.1 + 0.01 * int(re.sub(r"\D", "", utt_id) or 0)
    return (loudness * np.sin(np.arange(8_000) / 7)).astype(np.float32)


class Page(html.parser.HTMLParser):
    """The page as a browser parses it: its elements, attributes, sources, titles and visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text = source, ""
        self.elements: list[str] = []
        self.attributes: list[str] = []
        self.sources: list[str] = []
        self.titles: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data
        if self._open and self._open[-1] == "h3":
            self.titles.append(data)


def page_of(
    directory: Path, utterances: Sequence[UtteranceResult], audio: Callable[[str], Samples] = tone, seed: int = 1
) -> Page:
    write_samples(directory, utterances, audio, seed, normalizer_of("en"))
    return Page((directory / "samples.html").read_text(encoding="utf-8"))


def test_the_worst_come_first(tmp_path: Path) -> None:
    """Most errors first; of equals, a word without any reference before 1 of 2, and that before 1 of 4."""
    utterances = scored(
        ("a b c d", "a b c d"), ("a b c d", "a x c d"), ("a b", "a x"), ("a b c d", "x y z d"), ("", "e")
    )
    page = page_of(tmp_path, utterances)
    assert page.titles == ["u3", "u4", "u2", "u1", "u0"]
    assert page.text.index("Most errors") < page.text.index("u3") < page.text.index("Random") < page.text.index("u0")
    assert "5 of 5 utterances" in page.text


def test_random_ones_are_the_same_in_every_run(tmp_path: Path) -> None:
    """Two runs over one corpus show the same random utterances, unless one of them is among the worst ones.

    Each utterance is shown once.
    """
    good, bad = ("a b c", "a b c"), ("a b c", "x y z")
    perfect = page_of(tmp_path / "perfect", scored(*[good] * 50))
    titles = page_of(tmp_path / "bad", scored(bad, *[good] * 49)).titles
    assert (len(perfect.titles), "Most errors" in perfect.text) == (5, False)
    assert titles == ["u0", *perfect.titles]
    assert page_of(tmp_path / "other", scored(*[good] * 50), seed=2).titles != perfect.titles
    assert sorted(page_of(tmp_path / "few", scored(*[bad] * 7)).titles) == [f"u{i}" for i in range(7)]


def test_audio_plays_from_the_page_and_from_the_file(tmp_path: Path) -> None:
    """The page contains the WAV file beside it: 16 bit, 16 kHz, and the utterance's samples."""
    page = page_of(tmp_path, scored(("a b", "a x"), ("c", "c")))
    files = sorted(tmp_path.glob("*.wav"))
    assert [file.name for file in files] == ["01_u0.wav", "02_u1.wav"]
    for utt_id, file, source in zip(page.titles, files, page.sources, strict=True):
        assert base64.b64decode(source.removeprefix("data:audio/wav;base64,")) == file.read_bytes()
        assert soundfile.info(file).subtype == "PCM_16"
        samples, rate = soundfile.read(file, dtype="float32")
        assert rate == 16_000
        np.testing.assert_allclose(samples, tone(utt_id), atol=1 / 32_768)
    assert "script" not in page.elements


def test_a_card(tmp_path: Path) -> None:
    """Difference, counts, speaker, seconds, and both texts before normalisation; without a score only the text."""
    page = page_of(tmp_path, scored(("THE QUICK FOX", "The thick fox.")))
    assert '<mark class="substitute"><del>quick</del> <ins>thick</ins></mark>' in page.source
    assert "1 error in 3 words (33.3 %): 1 substituted, 0 deleted, 0 inserted" in page.text
    for text in ("1.0 s", "speaker 1089", "THE QUICK FOX", "The thick fox."):
        assert text in page.text
    unscored = page_of(tmp_path, [transcript("u0", None, "Text 0.")])
    assert "Text 0." in unscored.text
    assert "Reference" not in unscored.text


def test_long_loud_and_broken_audio(tmp_path: Path) -> None:
    """Of 35 s the first 30 are stored; samples outside [-1, 1] are clipped, and NaN becomes silence."""
    audio = np.zeros(560_000, np.float32)
    audio[:4] = 2.0, -2.0, np.nan, 0.5
    page = page_of(tmp_path, [transcript("u", "a", "a", 35)], lambda _: audio)
    samples, rate = soundfile.read(next(tmp_path.glob("*.wav")))
    assert len(samples) == 30 * rate
    np.testing.assert_allclose(samples[:4], [1, -1, 0, 0.5], atol=1e-4)
    assert "35.0 s · only the first 30 s are stored" in page.text


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Markup, escapes, NUL, template marks and lone surrogates are shown as text, and no path is followed."""
    bad = transcript(f"../../{HOSTILE}", HOSTILE, f"x {HOSTILE}")
    bad = dataclasses.replace(bad, speaker=HOSTILE, counts=ErrorCounts(1, 0, 0, 1))
    page = page_of(tmp_path / "in" / "samples", [bad, transcript(HOSTILE, HOSTILE, HOSTILE)])
    assert not {"script", "img"} & set(page.elements)
    assert "onerror" not in page.attributes
    assert r"<script>alert('x')</script><img src=x onerror=alert(1)> \x1b[2J \x00 \u202etxt $page" in page.text
    assert page.source.replace("\n", "").isprintable()
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".html", ".wav", ".wav"]
    assert not list(tmp_path.glob("*.*")) + list((tmp_path / "in").glob("*.*"))


def test_ten_megabytes_of_text(tmp_path: Path) -> None:
    """The page stays small and states the lengths."""
    loop, counts = "thank you " * 1_000_000, ErrorCounts(1, 0, 0, 1)
    bad = dataclasses.replace(transcript("u" * 10_000, loop, "x" * 10_000_000), speaker="s" * 10_000, counts=counts)
    page = page_of(tmp_path, [bad])
    assert len(page.source) < 100_000
    assert "(10,000,000 characters)" in page.text


def test_file_names_are_safe() -> None:
    """Letters, digits, dot, dash and underscore, without directories and of limited length."""
    ids = ("2830-3980-0043", "../../etc/passwd", 'a/b\\c:d*e?f"g<h>i|j\0k\nl m', "日本語", "x" * 500)
    names = ("2830-3980-0043", ".._.._etc_passwd", "a_b_c_d_e_f_g_h_i_j_k_l_m", "_", "x" * 80)
    assert tuple(file_suffix(utt_id) for utt_id in ids) == tuple(f"{name}.wav" for name in names)
