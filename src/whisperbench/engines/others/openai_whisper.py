"""openai-whisper: `whisper.decode` for one window after the other, as in the README of openai/whisper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisperbench.checkpoint.architecture import TEXT_POSITIONS, Architecture
from whisperbench.checkpoint.files import read_json, weight_files
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS, Window, WindowOutput

NAMES = {
    ".layers.": ".blocks.",
    ".self_attn.": ".attn.",
    ".encoder_attn.": ".cross_attn.",
    ".self_attn_layer_norm.": ".attn_ln.",
    ".encoder_attn_layer_norm.": ".cross_attn_ln.",
    ".final_layer_norm.": ".mlp_ln.",
    ".q_proj.": ".query.",
    ".k_proj.": ".key.",
    ".v_proj.": ".value.",
    ".out_proj.": ".out.",
    ".fc1.": ".mlp.0.",
    ".fc2.": ".mlp.2.",
    "encoder.layer_norm.": "encoder.ln_post.",
    "decoder.layer_norm.": "decoder.ln.",
    ".embed_positions.weight": ".positional_embedding",
    ".embed_tokens.": ".token_embedding.",
}
"""Parts of a weight's name in the Hugging Face layout, and in openai/whisper."""


class OpenaiWhisper(BatchEngine):
    """Disabled: fallback temperatures, thresholds and suppressed blanks, which belong to `transcribe`, and suppressed
    text tokens.

    Its weights stay in float32 and are cast in each product, as after `whisper.load_model`.  With random weights the
    end of text is suppressed, so that each window gets the required number of tokens.
    """

    package = "openai-whisper"
    deviations = "suppresses the special tokens of its prompt, and the one for no speech"

    def load(self) -> str:
        import torch
        import whisper

        directory = Path(self.settings.checkpoint)
        a = Architecture.from_config(read_json(directory / "config.json"), directory / "config.json")
        encoder = a.mel_bins, WINDOW_POSITIONS, a.d_model, a.heads, a.encoder_layers
        decoder = a.vocab_size, TEXT_POSITIONS, a.d_model, a.heads, a.decoder_layers
        dimensions = whisper.model.ModelDimensions(*encoder, *decoder)
        torch.manual_seed(self.settings.config.seed)
        model = whisper.model.Whisper(dimensions)
        if self.settings.config.random_weights:
            torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # not initialized by the model
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
            language=self.settings.config.language,
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
    for part, replacement in NAMES.items():
        name = name.replace(part, replacement)
    return name
