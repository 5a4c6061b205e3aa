"""The dimensions of a Whisper checkpoint, and the configuration files that follow from them."""

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
"""English-only; multilingual with 99 languages (to large-v2); with 100 (from large-v3: Cantonese)."""

TEXT_POSITIONS = 448
HEAD_WIDTH = 64

NAMED_ALIKE = (
    *(END_OF_TEXT, "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>"),
    *("<|startofprev|>", "<|notimestamps|>"),
)
"""Special tokens that every tokenizer has; Hebrew is he or iw and silence nospeech or nocaptions, by its age."""


@dataclasses.dataclass(frozen=True, slots=True)
class Architecture:
    """What tells one Whisper size from another; everything else is the same in all of them."""

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
        """Weights, without the biases and norms: 12 d² an encoder layer, 16 d² a decoder layer, what embeds, and the
        convolutions."""
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
            ModelError: it describes no Whisper, or one that the 30 s windows of this program do not fit.
        """
        if config.get("model_type") != "whisper":
            raise ModelError(f"{path} is not Whisper: it says model_type={config.get('model_type')!r}.")
        names = ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins", "vocab_size")
        for name in names:
            if type(config.get(name)) is not int or config[name] < 1:
                raise ModelError(f"{path} says {name}={config.get(name)!r}; expected a whole number of 1 or more.")
        fixed = {
            "encoder_attention_heads": config["d_model"] // HEAD_WIDTH,
            "decoder_attention_heads": config["d_model"] // HEAD_WIDTH,
            "max_source_positions": WINDOW_POSITIONS,
            "max_target_positions": TEXT_POSITIONS,
        }
        for name, wanted in fixed.items():
            if config.get(name, wanted) != wanted:
                raise ModelError(f"{path} says {name}={config[name]!r}; a Whisper of this width has {wanted}.")
        return cls(*(config[name] for name in names))

    def check_tokens(self, tokens: Mapping[str, int], directory: Path) -> None:
        """Hold a tokenizer against the embedding.

        Raises:
            ModelError: its special tokens lie where a vocabulary of this size does not have them.
        """
        if self.vocab_size not in VOCABULARIES:
            known = ", ".join(map(str, VOCABULARIES))
            raise ModelError(f"{directory} has a vocabulary of {self.vocab_size}; those of Whisper have {known}.")
        wanted = special_ids(self.vocab_size)
        for name in NAMED_ALIKE:
            if tokens.get(name) != wanted[name]:
                raise ModelError(
                    f"The tokenizer in {directory} has {name} at {tokens.get(name)}, and a vocabulary of "
                    f"{self.vocab_size} has it at {wanted[name]}: it belongs to another checkpoint."
                )
        if (highest := max(tokens.values())) >= self.vocab_size:
            raise ModelError(
                f"The tokenizer in {directory} has a token {highest} and the model only {self.vocab_size}."
            )


def write_model_config(
    directory: Path,
    architecture: Architecture,
    tokens: Mapping[str, int],
    *,
    dtype: str,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json, generation_config.json and preprocessor_config.json, as the published checkpoints have them.

    `generation` adds what no dimension tells: suppressed tokens and alignment heads.
    """
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    extra = dict(generation or {})
    ids = {
        "bos_token_id": 50_257,  # so in every published size, English-only ones included
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
        **{name: extra[name] for name in ("suppress_tokens", "begin_suppress_tokens") if name in extra},
    ).save_pretrained(directory)
    GenerationConfig(**_generation(architecture, tokens), **ids, **extra).save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=architecture.mel_bins).save_pretrained(directory)


def _generation(architecture: Architecture, tokens: Mapping[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "is_multilingual": architecture.multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": TEXT_POSITIONS,
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "return_timestamps": False,
    }
    if architecture.multilingual:
        values["lang_to_id"] = {f"<|{code}|>": index for code, index in language_ids(tokens).items()}
        values["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return values
