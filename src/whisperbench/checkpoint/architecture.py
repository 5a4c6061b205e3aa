"""Dimensions of a Whisper checkpoint, and the configuration files derived from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from whisperbench.checkpoint.tokenizer import END_OF_TEXT, language_ids, special_ids
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.errors import ModelError

ENGLISH_ONLY_VOCABULARY = 51_864
VOCABULARIES = (51_864, 51_865, 51_866)
"""English-only; 99 languages (up to large-v2); 100 languages (from large-v3 on, which added Cantonese)."""

TEXT_POSITIONS = 448
HEAD_WIDTH = 64

CHECKED_TOKENS = (
    *(END_OF_TEXT, "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"),
    *("<|startofprev|>", "<|notimestamps|>"),
)
"""Special tokens with the same name in every tokenizer; old ones use iw for he, and nocaptions for nospeech."""


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """The dimensions in which Whisper sizes differ."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    mel_bins: int
    vocab_size: int

    @property
    def heads(self) -> int:
        return self.d_model // HEAD_WIDTH

    @property
    def ffn_dim(self) -> int:
        return 4 * self.d_model

    @property
    def parameters(self) -> int:
        """Number of weights without biases and norms.

        12 d² per encoder layer, 16 d² per decoder layer, embeddings and convolutions.
        """
        d = self.d_model
        layers = (12 * self.encoder_layers + 16 * self.decoder_layers) * d * d
        return layers + (self.vocab_size + TEXT_POSITIONS + WINDOW_POSITIONS + 3 * self.mel_bins + 3 * d) * d

    @property
    def multilingual(self) -> bool:
        return self.vocab_size > ENGLISH_ONLY_VOCABULARY

    @classmethod
    def from_config(cls, config: Mapping[str, Any], path: Path) -> Self:
        """Read a Hugging Face `config.json`.

        Raises:
            ModelError: the file does not describe a Whisper model with windows of 30 s.
        """
        if config.get("model_type") != "whisper":
            raise ModelError(f"{path} is not a Whisper model: model_type={config.get('model_type')!r:.200}.")
        names = ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins", "vocab_size")
        for name in names:
            if type(config.get(name)) is not int or config[name] < 1:
                raise ModelError(f"{path} has {name}={config.get(name)!r:.200}, expected a whole number of 1 or more.")
        fixed = {
            "encoder_attention_heads": config["d_model"] // HEAD_WIDTH,
            "decoder_attention_heads": config["d_model"] // HEAD_WIDTH,
            "max_source_positions": WINDOW_POSITIONS,
            "max_target_positions": TEXT_POSITIONS,
        }
        for name, expected in fixed.items():
            if config.get(name, expected) != expected:
                raise ModelError(f"{path} has {name}={config[name]!r:.200}, expected {expected} for its d_model.")
        return cls(*(config[name] for name in names))

    def check_tokens(self, tokens: Mapping[str, int], directory: Path) -> None:
        """Check that a tokenizer matches the vocabulary.

        Raises:
            ModelError: a special token has another id than in a vocabulary of this size.
        """
        if self.vocab_size not in VOCABULARIES:
            known = ", ".join(map(str, VOCABULARIES))
            raise ModelError(f"{directory} has a vocabulary of {self.vocab_size}, expected one of {known}.")
        expected = special_ids(self.vocab_size)
        for name in CHECKED_TOKENS:
            if tokens.get(name) != expected[name]:
                raise ModelError(
                    f"The tokenizer in {directory} belongs to another checkpoint: the id of {name} is "
                    f"{tokens.get(name)}, expected {expected[name]}. Copy the tokenizer of the same checkpoint."
                )
        if (highest := max(tokens.values())) >= self.vocab_size:
            raise ModelError(
                f"The tokenizer in {directory} has the token id {highest}, but the model has {self.vocab_size} tokens."
            )


def write_model_config(directory: Path, architecture: Architecture, tokens: Mapping[str, int], *, dtype: str) -> None:
    """Write config.json, generation_config.json and preprocessor_config.json as in the published checkpoints.

    Suppressed tokens and alignment heads are omitted, because the engines do not use them.
    """
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    generation: dict[str, Any] = {
        "is_multilingual": architecture.multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": TEXT_POSITIONS,
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "return_timestamps": False,
    }
    if architecture.multilingual:
        generation["lang_to_id"] = {f"<|{code}|>": index for code, index in language_ids(tokens).items()}
        generation["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    ids = {
        "bos_token_id": 50_257,  # in every published size, English-only ones included
        "eos_token_id": tokens[END_OF_TEXT],
        "pad_token_id": tokens[END_OF_TEXT],
        "decoder_start_token_id": tokens["<|startoftranscript|>"],
    }
    WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        dtype=dtype,
        d_model=architecture.d_model,
        encoder_layers=architecture.encoder_layers,
        encoder_attention_heads=architecture.heads,
        encoder_ffn_dim=architecture.ffn_dim,
        decoder_layers=architecture.decoder_layers,
        decoder_attention_heads=architecture.heads,
        decoder_ffn_dim=architecture.ffn_dim,
        num_mel_bins=architecture.mel_bins,
        vocab_size=architecture.vocab_size,
        max_source_positions=WINDOW_POSITIONS,
        max_target_positions=TEXT_POSITIONS,
        **ids,
    ).save_pretrained(directory)
    GenerationConfig(**generation, **ids).save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=architecture.mel_bins).save_pretrained(directory)
