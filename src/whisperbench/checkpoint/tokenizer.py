"""Whisper's special tokens, and the tokenizer files of a checkpoint directory.

The order of the special tokens and the number of languages of a vocabulary follow openai/whisper (tokenizer.py and
model.py).
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.checkpoint.files import read_json
from whisperbench.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
TIMESTAMPS = 1_501  # <|0.00|> to <|30.00|> in steps of 0.02 s
MERGES = Path(__file__).parents[1] / "data" / "whisper" / "merges.txt.xz"

LANGUAGE_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi "
    "ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd "
    "gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
"""Languages in the order of the vocabulary; Cantonese (yue) was added with large-v3."""


def special_ids(vocab_size: int) -> dict[str, int]:
    """Ids of the special tokens, without timestamps, by name, in a vocabulary of this size."""
    languages = LANGUAGE_CODES.split()[: vocab_size - 51_765 - (vocab_size > 51_864)]
    names = [END_OF_TEXT, "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    first = vocab_size - TIMESTAMPS - len(names)
    return {name: first + index for index, name in enumerate(names)}


def language_ids(tokens: Mapping[str, int]) -> dict[str, int]:
    """Token ids of the languages by code, in the order of the vocabulary."""
    codes = (
        (index, match[1]) for name, index in tokens.items() if (match := re.fullmatch(r"<\|([a-z]{2,3})\|>", name))
    )
    return {code: index for index, code in sorted(codes)}


def read_tokens(directory: Path) -> dict[str, int]:
    """The added tokens of a checkpoint directory by name, from tokenizer.json or from the files of a slow tokenizer.

    Raises:
        ModelError: the tokenizer is missing or cannot be read.
    """
    slow_files = [directory / name for name in ("vocab.json", "merges.txt", "added_tokens.json")]
    if (directory / "tokenizer.json").is_file() or not all(path.is_file() for path in slow_files):
        return added_tokens(read_tokenizer(directory / "tokenizer.json"))
    vocabulary = read_json(slow_files[0])
    tokens = {END_OF_TEXT: vocabulary[END_OF_TEXT]} if END_OF_TEXT in vocabulary else {}
    tokens |= read_json(slow_files[-1])
    if not all(type(index) is int and index >= 0 for index in tokens.values()):
        raise ModelError(f"{slow_files[-1]} has a token whose id is not a whole number of 0 or more.")
    return tokens


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        ModelError: the file is missing, or not a byte-level BPE with added tokens.
    """
    from tokenizers import Tokenizer, models

    if not path.is_file():
        raise ModelError(
            f"{path.parent} lacks tokenizer.json. Copy it from the original checkpoint; CTranslate2's converter does "
            "that with --copy_files tokenizer.json."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of a library in Rust
            raise
        raise ModelError(f"{path} is not a Whisper tokenizer: {error}") from error
    if not isinstance(tokenizer.model, models.BPE) or not added_tokens(tokenizer):
        raise ModelError(f"{path} is not a Whisper tokenizer, which is a byte-level BPE with added tokens.")
    return tokenizer


def added_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """The added tokens by name: special tokens and, in newer files, timestamps."""
    return {token.content: index for index, token in tokenizer.get_added_tokens_decoder().items()}


def published_tokenizer(vocab_size: int) -> Tokenizer:
    """The tokenizer of a published size, for random weights, without a download.

    Multilingual vocabularies have their real ids.  The English-only vocabulary (51,864) has the multilingual words,
    which suffice to estimate the number of tokens of a reference.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = special_ids(vocab_size)
    with lzma.open(MERGES, "rt", encoding="utf-8") as file:
        merges = [(left, right) for left, right in map(str.split, file)]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    words += [f"Ġ<{index}>" for index in range(len(words), special[END_OF_TEXT])]  # id 50256 of the multilingual ones
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*special])
    tokenizer.add_tokens([AddedToken(f"<|{index * 0.02:.2f}|>", normalized=False) for index in range(TIMESTAMPS)])
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer files of a checkpoint directory.

    Raises:
        ModelError: a file cannot be written.
    """
    from transformers import WhisperTokenizerFast

    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    named = {"pad_token": END_OF_TEXT, "extra_special_tokens": special}
    written = WhisperTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024, **named)
    try:
        written.save_pretrained(directory)
    except Exception as error:  # the library raises Exception, for example if the disk is full
        raise ModelError(f"{directory / 'tokenizer.json'} cannot be written: {error}.") from error
