"""Whisper's normalisers: the rules of OpenAI for English, and graphemes where words have no spaces between them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from whisperbench.measure.normalizer import CHARACTER_LANGUAGES, normalizer_of

WORDS = (
    "one two twenty hundred thousand million point and a half minus $5 20% per cent double triple oh zero first thirds "
    "3rd 1,000 0.5 $0.07 ¢7 £2 cents dollars €3 'cause cause kinda sorta dunno gonna colour won't i'ma mr. st. (x) [y] "
    "<z> é ß ， … ½ ① 12abc uh mm's don't it's he'd been 1s ones"
)
CHARACTERS = "abcdefghijklmnopqrstuvwxyz '.,-$%¢€£0123456789()[]<>éßœ½\u0301\u200d中"


def random_texts(count: int) -> Iterator[str]:
    """Random words of the rules and random characters, alternately."""
    rng, words = random.Random(1), WORDS.split()  # noqa: S311
    for number in range(count):
        if number % 2:
            yield " ".join(rng.choices(words, k=rng.randint(1, 8)))
        else:
            yield "".join(rng.choices(CHARACTERS, k=rng.randint(1, 30)))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("'Cause the cause of it", "cause the cause of it"),
        ("I'm kinda, sorta lost; dunno", "i am kinda sorta lost dunno"),
        ("Mr. Smith didn't see TWENTY-ONE colours", "mister smith did not see 21 colors"),
        ("two and a half million dollars", "$2500000"),
        ("[music] uh, (laughs) nineteen ninety nine", "1999"),
    ],
)
def test_english_is_openai_s(text: str, normalized: str) -> None:
    """The expected texts are those of openai-whisper 20250625."""
    assert normalizer_of("en")(text) == normalized


def test_random_texts_are_normalised_as_by_openai() -> None:
    """The digest is that of openai-whisper 20250625; tests/nightly compares 100,000 texts with the package itself."""
    found = "\n".join(map(normalizer_of("en"), random_texts(2_000)))
    assert hashlib.sha256(found.encode()).hexdigest()[:16] == "ec91126387b91abe"


@pytest.mark.parametrize(
    ("language", "text", "units"),
    [
        ("zh", "今天，天气 很好。29度", "今 天 天 气 很 好 2 9 度"),
        ("yue", "佢哋，好", "佢 哋 好"),
        ("ja", "か\u3099んばって！", "が ん ば っ て"),
        ("ko", "안녕 하세요?", "안 녕 하 세 요"),
        ("th", "สวัสดี\u200bครับ", "ส วั ส ดี ค รั บ"),
        ("lo", "ສະບາຍດີ", "ສ ະ ບ າ ຍ ດີ"),
        ("my", "မြန်မာ", "မြ န် မ ာ"),
        ("hi", "नमस्ते, क्\u200dष!", "नमस्ते क्\u200dष"),
        ("bn", "র\u200d্যাম।", "র\u200d্যাম"),
        ("ta", "வணக்கம்", "வணக்கம்"),
        ("tr", "İstanbul'da", "i\u0307stanbul da"),
        ("de", "Straße, 21! 👍\ufe0f 1\ufe0f\u20e3", "straße 21 1"),
    ],
)
def test_units_of_other_languages(language: str, text: str, units: str) -> None:
    """Graphemes without spaces and punctuation, or words with the marks of their letters."""
    normalizer = normalizer_of(language)
    assert normalizer(text) == units
    assert normalizer.unit == ("character" if language in CHARACTER_LANGUAGES else "word")


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_units_stand_between_single_spaces(language: str) -> None:
    """For any text, splitting at spaces gives the units."""
    for text in ("", "  ", "\0", "<b>", "$ 1 %", " Mr. X ", "½", "①", "\ud800", "a\u00a0b\n", "oh"):
        normalized = normalizer_of(language)(text)
        assert normalized == " ".join(normalized.split())


def test_names_differ_with_the_rules() -> None:
    """The name holds a digest, because transformers may change its copy of the rules."""
    english, german = normalizer_of("en").name, normalizer_of("de").name
    assert english.startswith("whisper-english/")
    assert german.startswith("whisper-basic-marks/")
    assert len({english[-8:], german[-8:]}) == 2
    assert normalizer_of("zh").name == german
