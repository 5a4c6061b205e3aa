"""Whisper's text normalisers, which are applied to references and hypotheses before errors are counted."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import runpy
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from whisperbench.errors import CorpusError

SPELLINGS = Path(__file__).parents[1] / "data" / "whisper" / "english.json"

CHARACTER_LANGUAGES = frozenset({"zh", "yue", "ja", "ko", "th", "lo", "my"})
"""Languages whose errors are counted in characters (graphemes), because their words are not separated by spaces or, in
Korean, not consistently.  Source: Radford et al. 2022 (arXiv 2212.04356), appendix C; Korean and Cantonese as in the
evaluation of large-v3."""

MAX_REMEMBERED = 1 << 14
"""Number of normalised transcripts that are kept in memory, for references and hypotheses of 8,000 utterances."""


Unit = Literal["word", "character"]


def unit_of(language: str) -> Unit:
    """What the errors of a language are counted in."""
    return "character" if language in CHARACTER_LANGUAGES else "word"


class Normalizer:
    """Whisper's normaliser of a language: the English one for `en`, the basic one for other languages.

    The basic one keeps the marks of letters, because the vowels of Indic and other scripts are marks; Whisper's own
    replaces them with spaces, which splits words.

    Attributes:
        unit: what errors are counted in, and what a normalised text separates by spaces.
        name: the kind of normaliser and a digest of its rules, because only errors after the same one are comparable.
    """

    def __init__(self, language: str) -> None:
        self.unit = unit_of(language)
        classes, rules = runpy.run_path(str(_rules())), _rules().read_bytes()
        if language == "en":
            kind, spellings = "english", SPELLINGS.read_bytes()
            normalize = classes["EnglishTextNormalizer"](json.loads(spellings))
        else:
            kind, spellings = "basic-marks", b""
            normalize = classes["BasicTextNormalizer"](split_letters=self.unit == "character")
            normalize.clean = _without_symbols
        self.name = f"whisper-{kind}/{hashlib.sha256(rules + spellings).hexdigest()[:8]}"
        self._normalize: Callable[[str], str] = functools.lru_cache(MAX_REMEMBERED)(normalize)

    def __call__(self, text: str) -> str:
        """The normalised words or characters of `text`, joined by single spaces.

        Raises:
            CorpusError: the text contains a number of more than 4,300 digits, which Python does not convert.
        """
        try:
            return " ".join(self._normalize(text).split())
        except ValueError as error:
            raise CorpusError(
                f"The transcript {text[:60]!a}… ({len(text):,} characters) cannot be normalised, because it contains a "
                "number with too many digits. Correct the transcript, or remove the utterance."
            ) from error


@functools.cache
def normalizer_of(language: str) -> Normalizer:
    """The normaliser of a language; one instance, so that a reference is normalised only once."""
    return Normalizer(language)


def _rules() -> Path:
    """Transformers' copy of OpenAI's normalisers; it is read without its package, whose import takes a second."""
    package: Any = importlib.util.find_spec("transformers")
    return Path(package.origin).parent / "models" / "whisper" / "english_normalizer.py"


def _without_symbols(text: str) -> str:
    """Replace symbols, punctuation, zero-width spaces, and marks that belong to no letter with spaces."""
    import regex

    symbols = r"(\p{L}[\p{M}\u200c\u200d]+)|[\p{M}\p{S}\p{P}\u200b]"
    return str(regex.sub(symbols, lambda match: match[1] or " ", unicodedata.normalize("NFKC", text)))
