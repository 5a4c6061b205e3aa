"""What the doctor says of a model and a corpus, before anything is downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from whisperbench.check import Check, ok, problem, warning
from whisperbench.inputs import librispeech
from whisperbench.inputs.checkpoint import resolve_model
from whisperbench.inputs.corpus import load_corpus
from whisperbench.inputs.published_models import ALIASES, PUBLISHED

HUB_SECONDS = 8


def check_model(model: str, revision: str, cache: Path) -> Sequence[Check]:
    """Whether a checkpoint is at hand, or can be downloaded.

    Raises:
        CheckpointError: there is none of that name, or it cannot be loaded.
    """
    hub_id = ALIASES.get(model, model)
    if hub_id not in PUBLISHED and (model == "demo" or "/" not in model or Path(model).expanduser().is_dir()):
        checkpoint = resolve_model(model, revision, cache_dir=cache, random_weights=False)
        return [ok(f"{checkpoint.model_id} at hand in {checkpoint.path}")]
    import huggingface_hub

    for name in ("model.safetensors", "model.safetensors.index.json"):
        if isinstance(huggingface_hub.try_to_load_from_cache(hub_id, name, revision=revision), str):
            return [ok(f"{hub_id} at hand in the hub's cache")]
    return [
        _downloadable(
            hub_id, lambda: huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=HUB_SECONDS), "model"
        )
    ]


def check_corpus(corpus: str, split: str) -> Sequence[Check]:
    """Whether a corpus is at hand, or can be downloaded, and what would be doubtful about a WER over it.

    Raises:
        CorpusError: there is none of that name, or it cannot be read.
    """
    if corpus != "librispeech":
        loaded = load_corpus(corpus, split, 0)
        silent = sum(utterance.reference is None for utterance in loaded.utterances)
        text = f"{len(loaded.utterances):,} utterances in {loaded.source}"
        doubts = [warning(doubt, "Mend the transcript, or measure throughput only.") for doubt in loaded.doubts]
        if silent:
            return [warning(f"{text}, no transcripts", "There will be no WER, throughput only."), *doubts]
        return [ok(text), *doubts]
    import huggingface_hub

    try:
        snapshot = huggingface_hub.snapshot_download(librispeech.HUB_ID, repo_type="dataset", local_files_only=True)
        at_hand = split in librispeech.parquet_splits(Path(snapshot))
    except OSError:
        at_hand = False
    if at_hand:
        return [ok(f"{split} of {librispeech.HUB_ID} at hand in the hub's cache")]
    api = huggingface_hub.HfApi()
    return [
        _downloadable(
            f"{split} of {librispeech.HUB_ID}",
            lambda: api.dataset_info(librispeech.HUB_ID, timeout=HUB_SECONDS),
            "corpus",
        )
    ]


def _downloadable(what: str, ask: Callable[[], Any], option_name: str) -> Check:
    try:
        ask()
    except Exception as error:  # of whichever HTTP library this version of the hub's client is built on
        reason = re.split(r"\n| \(Request ID", str(error).strip() or type(error).__name__)[0][:200]
        return problem(
            f"{what} is not on this disk, and the hub does not give it: {reason}",
            f"Use a local {option_name}=DIRECTORY or {option_name}=demo.",
        )
    return ok(f"{what} can be downloaded")
