"""openai-whisper: `whisper.decode` of one window after the other, as the README of openai/whisper shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisperbench.checkpoint.architecture import TEXT_POSITIONS
from whisperbench.checkpoint.files import read_json, weight_files
from whisperbench.config.option import WINDOW_POSITIONS
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput

NAMES = (
    (r"\.layers\.", ".blocks."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.(q|k|v)_proj\.", lambda found: f".{ {'q': 'query', 'k': 'key', 'v': 'value'}[found[1]] }."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.", ".token_embedding."),
)
"""A weight's name in the Hugging Face layout, part by part, and openai/whisper's."""


class OpenaiWhisper(BatchEngine):
    """Off: fallback temperatures, thresholds and blanks, which belong to `transcribe`, and suppressed text tokens.

    Its weights stay in float32 and are cast in each product, as `whisper.load_model` leaves them.  With random weights
    the end of text is suppressed too, so that each window has the length that it asks for.
    """

    package = "openai-whisper"
    adds = "suppresses the special tokens of its prompt, and the one for no speech"

    def load(self) -> str:
        import torch
        import whisper

        directory = Path(self.settings.checkpoint)
        config = read_json(directory / "config.json")
        width = config["d_model"]
        encoder = config["encoder_attention_heads"], config["encoder_layers"]
        decoder = config["decoder_attention_heads"], config["decoder_layers"]
        dimensions = whisper.model.ModelDimensions(
            config["num_mel_bins"],
            WINDOW_POSITIONS,
            width,
            *encoder,
            config["vocab_size"],
            TEXT_POSITIONS,
            width,
            *decoder,
        )
        torch.manual_seed(self.settings.seed)
        model = whisper.model.Whisper(dimensions)
        if self.settings.load_format == "dummy":
            torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # the only one it does not set itself
        else:
            model.load_state_dict(weights_of(directory))
        self._model = model.to(self.device).eval()
        return self.settings.dtype

    def transcribe_batch(self, windows: Sequence[Window]) -> list[WindowOutput]:
        import whisper

        found = []
        for window in windows:
            audio = whisper.pad_or_trim(window.audio)
            mel = whisper.log_mel_spectrogram(audio, n_mels=self._model.dims.n_mels).to(self._model.device)
            result = whisper.decode(self._model, mel, self._options(window.forced_tokens))
            count = window.forced_tokens or min(len(result.tokens) + 1, MAX_OUTPUT_TOKENS)
            found.append(WindowOutput(window, result.text.strip(), count))
        return found

    def _options(self, tokens: int | None) -> Any:
        import whisper

        tokenizer = whisper.tokenizer.get_tokenizer(
            self._model.is_multilingual, num_languages=self._model.num_languages
        )
        return whisper.DecodingOptions(
            language=self.settings.language,
            temperature=0.0,
            sample_len=tokens or MAX_OUTPUT_TOKENS,
            suppress_tokens=[tokenizer.eot] if tokens else [],
            suppress_blank=False,
            without_timestamps=True,
            fp16=self.settings.dtype == "float16",
        )


def weights_of(directory: Path) -> dict[str, Any]:
    """The weights of a checkpoint in the Hugging Face layout, under openai/whisper's names."""
    from safetensors.torch import load_file

    tensors = [each for name in weight_files(directory) for each in load_file(directory / name).items()]
    return {openai_name(name): tensor for name, tensor in tensors if name != "proj_out.weight"}


def openai_name(name: str) -> str:
    """`model.encoder.layers.0.self_attn.k_proj.weight` -> `encoder.blocks.0.attn.key.weight`."""
    name = name.removeprefix("model.")
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
