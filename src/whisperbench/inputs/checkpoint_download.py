"""A checkpoint of the Hugging Face hub, fetched into the user's own hub cache: the files that an engine reads."""

from __future__ import annotations

import contextlib
from pathlib import Path

from whisperbench.errors import ModelError
from whisperbench.inputs.weight_files import WEIGHT_PATTERNS

HUB_TIMEOUT_SECONDS = 8

CONFIGURATION_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "normalizer.json"),
)


def download_checkpoint(hub_id: str, revision: str, *, with_weights: bool) -> Path:
    """The snapshot directory of a hub model, whose name is the commit; a copy of before where the hub is out of reach.

    Raises:
        ModelError: the hub does not have it, or gives no answer and there is no copy.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    patterns = [*CONFIGURATION_FILES, *TOKENIZER_FILES, *(WEIGHT_PATTERNS if with_weights else ())]
    try:
        # `snapshot_download` waits without a limit for its first answer, so that the hub is tried before.
        HfApi().model_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except RevisionNotFoundError as error:
        raise ModelError(f"{hub_id} has no branch, tag or commit {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {hub_id}, or it is private: then log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except Exception as error:  # the hub's HTTP library lets its own errors through, and versions use different ones
        with contextlib.suppress(OSError, ValueError):
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=True))
        cause = str(error).strip().partition("\n")[0][:300].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{hub_id} cannot be fetched from the Hugging Face hub, and the local cache does not hold revision "
            f"{revision!r}: {cause}. Without the hub use a local checkpoint directory, model=demo, or "
            "load_format=dummy (random weights: throughput only)."
        ) from error
