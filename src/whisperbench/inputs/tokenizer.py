"""Whisper's tokens: where the special ones lie, and the tokenizer files of a checkpoint directory.

The order of the special tokens and the formula for how many languages a vocabulary holds are those
of openai/whisper (tokenizer.py and model.py).
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whisperbench.errors import ModelError

END_OF_TEXT = "<|endoftext|>"
TIMESTAMPS = 1_501  # <|0.00|> to <|30.00|> in steps of 0.02 s
JSON_LIMIT_BYTES = 64 * 2**20
"""Fifteen times the largest real file: what is longer is not read into memory."""

MERGES = Path(__file__).parents[1] / "data" / "whisper" / "merges.txt.xz"

LANGUAGE_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi "
    "ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd "
    "gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
"""In the order of the vocabulary; Cantonese came last, with large-v3."""


def special_ids(vocab_size: int) -> dict[str, int]:
    """The special tokens of a vocabulary, without the timestamps."""
    languages = LANGUAGE_CODES.split()[: vocab_size - 51_765 - (vocab_size > 51_864)]
    names = [
        END_OF_TEXT,
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in languages),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    first = vocab_size - TIMESTAMPS - len(names)
    return {name: first + index for index, name in enumerate(names)}


def language_ids(tokens: Mapping[str, int]) -> dict[str, int]:
    """Language code -> token id, in the order of the vocabulary."""
    codes = (
        (index, match[1]) for name, index in tokens.items() if (match := re.fullmatch(r"<\|([a-z]{2,3})\|>", name))
    )
    return {code: index for index, code in sorted(codes)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that nobody vouches for.

    Raises:
        ModelError: it is missing, too large or not a JSON object.
    """
    try:
        if (size := path.stat().st_size) > JSON_LIMIT_BYTES:
            raise ModelError(f"{path} is {size:,} bytes long; at most {JSON_LIMIT_BYTES:,} are read.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object.")
    return value


def read_tokens(directory: Path) -> dict[str, int]:
    """The added tokens of a checkpoint directory by name: special tokens and, in newer files, timestamps.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    if (path := directory / "tokenizer.json").is_file():
        return added_tokens(read_json(path), path)
    path = directory / "added_tokens.json"
    if not (path.is_file() and (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file()):
        raise ModelError(
            f"{directory} has no tokenizer: neither tokenizer.json nor vocab.json, merges.txt and added_tokens.json. "
            "Copy tokenizer.json from the checkpoint that it was made of."
        )
    vocabulary = read_json(directory / "vocab.json")
    tokens = {END_OF_TEXT: vocabulary[END_OF_TEXT]} if END_OF_TEXT in vocabulary else {}
    tokens |= read_json(path)
    if not all(type(index) is int and index >= 0 for index in tokens.values()):
        raise ModelError(f"{path} holds a token without a number.")
    return tokens


def added_tokens(tokenizer: Mapping[str, Any], path: Path) -> dict[str, int]:
    """The added tokens of a parsed `tokenizer.json` by name."""
    entries = tokenizer.get("added_tokens")
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{path} has no added tokens: it is not a Whisper tokenizer.")
    tokens = {}
    for entry in entries:
        name, index = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or type(index) is not int or index < 0:
            raise ModelError(f"{path} has an added token that is not a text with a number: {str(entry)[:200]}")
        tokens[name] = index
    return tokens


def published_tokenizer(vocab_size: int) -> dict[str, Any]:
    """The `tokenizer.json` of a published size, for random weights: nothing is downloaded.

    Words and special tokens have their real ids in the multilingual vocabularies.  The English-only
    ones (51,864) get the multilingual words too: with random weights every text is noise, and what
    counts is that a reference has about as many tokens as it would have.
    """
    special = special_ids(vocab_size)
    first = special[END_OF_TEXT]
    with lzma.open(MERGES, "rt", encoding="utf-8") as file:
        merges = file.read().splitlines()
    words = [*_byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    words += [f"Ġ<{index}>" for index in range(len(words), first)]  # id 50256 of the multilingual ones is unused
    start = vocab_size - TIMESTAMPS
    stamps = {f"<|{index * 0.02:.2f}|>": start + index for index in range(TIMESTAMPS)}
    added = sorted((special | stamps).items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": name in special,
            }
            for name, index in added
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {word: index for index, word in enumerate(words)},
            "merges": merges,
        },
    }


def write_tokenizer(directory: Path, tokenizer: Mapping[str, Any]) -> None:
    """Write tokenizer.json and what older versions of transformers read in its place.

    Raises:
        ModelError: the tokenizer is not the byte-level BPE that Whisper has.
    """
    path, model = directory / "tokenizer.json", tokenizer.get("model")
    if (
        not isinstance(model, dict)
        or not isinstance(model.get("vocab"), dict)
        or not isinstance(model.get("merges"), list)
    ):
        raise ModelError(f"{path.name} has no byte-level BPE vocabulary with merges: it is not a Whisper tokenizer.")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair) for pair in pairs):
        raise ModelError(f"{path.name} has a merge that is not a pair of texts.")
    tokens = added_tokens(tokenizer, path)
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in tokenizer["added_tokens"]
        },
        "additional_special_tokens": [
            entry["content"] for entry in tokenizer["added_tokens"] if entry.get("special") is True
        ],
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": END_OF_TEXT,
        "processor_class": "WhisperProcessor",
        "tokenizer_class": "WhisperTokenizer",
        "unk_token": END_OF_TEXT,
    }
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config,
        "vocab.json": model["vocab"],
        "added_tokens.json": tokens,
    }
    try:
        for name, value in files.items():
            (directory / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *map(" ".join, pairs), ""]
        (directory / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    except UnicodeEncodeError as error:
        raise ModelError(f"{path.name} holds text that is not Unicode: {error}") from error


def _byte_characters() -> list[str]:
    """GPT-2's printable character of each byte, in the order of the vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
