"""Engine inputs rendered outside of vLLM, from features or samples that this project prepares.

vLLM's public API takes audio and computes its features on the calling thread, but `LLMEngine.add_request` also accepts
inputs that are rendered already.  When the engine starts, vLLM renders one input, which serves as the template: later
inputs differ from it in the features, the key and the prompt.  `WindowRenderer` raises an error if the template has an
unknown form.  This is the only module that depends on the form of vLLM's internal inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.corpus.audio import AnySamples, Samples
from whisperbench.engines.padding import cache_slots, dense_positions, frames_of
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.vllm.features import log_mel_tensor, packed_window
from whisperbench.errors import EngineError

if TYPE_CHECKING:
    import torch

TESTED_VERSION = "0.32.0"


def stock_prompt(audio: AnySamples, prompt_token_ids: Sequence[int]) -> dict[str, Any]:
    """Argument of `LLM.generate` for an encoder-decoder model, as documented by vLLM."""
    return {
        "encoder_prompt": {"prompt": "", "multi_modal_data": {"audio": (audio, 16_000)}},
        "decoder_prompt": {"prompt_token_ids": list(prompt_token_ids)},
    }


def render_with_vllm(llm: Any, audio: AnySamples, prompt_token_ids: Sequence[int]) -> Any:
    """The engine input, including features, that `LLM.generate` renders from the same prompt."""
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    prompt = parse_model_prompt(llm.llm_engine.model_config, stock_prompt(audio, prompt_token_ids))
    return llm.llm_engine.renderer.render_cmpl([prompt])[0]


class WindowRenderer:
    """Render engine inputs from windows of audio; thread-safe.

    Raises:
        EngineError: this version of vLLM renders Whisper's input in another form than the tested one.
    """

    def __init__(self, llm: Any, settings: EngineSettings) -> None:
        import torch

        self._settings, self._prompt = settings, list(settings.prompt_token_ids)
        self._dtype: torch.dtype = getattr(torch, settings.dtype)
        probe = np.sin(np.arange(8_000, dtype=np.float32) / 7)
        try:
            self._template = render_with_vllm(llm, probe, self._prompt)
            self._check(probe)
        except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
            import vllm

            raise EngineError(
                f"vLLM {vllm.__version__} renders Whisper's input in a form that engine=vllm does not support "
                f"({error}). Use engine=vllm-stock, or vLLM {TESTED_VERSION}, which is tested."
            ) from error

    def __call__(self, key: str, audio: AnySamples, *, all_positions: bool = False) -> dict[str, Any]:
        """The engine input of one window.

        Args:
            key: key in vLLM's encoder cache.
            audio: samples at 16 kHz, at most 30 s, shape (n,); float32 if features are computed on the CPU.
            all_positions: keep all positions of the padding, regardless of the stride.
        """
        import torch

        stride = self._settings.stride
        dense = WINDOW_POSITIONS if all_positions else dense_positions(audio.size, stride)
        if self._settings.mel_device == "gpu":
            samples = torch.from_numpy(packed_window(audio, frames_of(dense)))
            return self._input(key, samples, cache_slots(dense, stride))
        features = log_mel_tensor(cast(Samples, audio), self._settings.mel_bins, self._dtype)
        if stride == 1:
            return self._input(key, features, WINDOW_POSITIONS)
        return self._input(key, features[:, : frames_of(dense)].contiguous(), cache_slots(dense, stride))

    def _input(self, key: str, features: torch.Tensor, slots: int) -> dict[str, Any]:
        from vllm.multimodal.inputs import MultiModalKwargsItem, MultiModalKwargsItems

        decoder = self._template["decoder_prompt"]
        placeholder = dataclasses.replace(decoder["mm_placeholders"]["audio"][0], length=slots)
        # Samples stay in host memory until the model copies them, because vLLM would wait for the GPU at each window.
        field = dataclasses.replace(self._element.field, keep_on_cpu=features.dim() == 1)
        element = type(self._element)(data=features, field=field)
        return {
            "type": "enc_dec",
            "encoder_prompt": dict(self._template["encoder_prompt"]),
            "decoder_prompt": {
                **decoder,
                "prompt_token_ids": list(self._prompt),
                "mm_kwargs": MultiModalKwargsItems({"audio": [MultiModalKwargsItem({"input_features": element})]}),
                "mm_hashes": {"audio": [key]},
                "mm_placeholders": {"audio": [placeholder]},
            },
        }

    @property
    def _element(self) -> Any:
        return self._template["decoder_prompt"]["mm_kwargs"]["audio"][0]["input_features"]

    def _check(self, probe: Samples) -> None:
        """Require that this project renders the probe as vLLM does, field by field and bit by bit."""
        import torch

        features = log_mel_tensor(probe, self._settings.mel_bins, self._dtype)
        ours, theirs = self._input("probe", features, WINDOW_POSITIONS), self._template
        _expect(theirs["type"] == ours["type"], f"its type is {theirs['type']!r}")
        for part in ("encoder_prompt", "decoder_prompt"):
            _expect(set(ours[part]) == set(theirs[part]), f"{part} has the fields {sorted(theirs[part])}")
            for field in set(theirs[part]) - {"mm_kwargs", "mm_hashes", "prompt"}:
                _expect(ours[part][field] == theirs[part][field], f"{part}.{field} is {theirs[part][field]!r:.100}")
        _expect(set(theirs["decoder_prompt"]["mm_hashes"]) == {"audio"}, "its hashes are not of audio")
        items = theirs["decoder_prompt"]["mm_kwargs"]["audio"]
        _expect([set(item) for item in items] == [{"input_features"}], "it has other fields than input_features")
        rendered = items[0]["input_features"].data
        mine = ours["decoder_prompt"]["mm_kwargs"]["audio"][0]["input_features"].data
        _expect(rendered.shape == mine.shape, f"its features have the shape {tuple(rendered.shape)}")
        _expect(torch.equal(rendered.to(mine.dtype), mine), "its features have other values")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
