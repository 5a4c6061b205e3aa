"""The published Whisper checkpoints: hub ids, dimensions and aliases."""

from __future__ import annotations

from whisperbench.checkpoint.architecture import Architecture

PUBLISHED = {
    "openai/whisper-tiny": Architecture(384, 4, 4, 80, 51_865),
    "openai/whisper-tiny.en": Architecture(384, 4, 4, 80, 51_864),
    "openai/whisper-base": Architecture(512, 6, 6, 80, 51_865),
    "openai/whisper-base.en": Architecture(512, 6, 6, 80, 51_864),
    "openai/whisper-small": Architecture(768, 12, 12, 80, 51_865),
    "openai/whisper-small.en": Architecture(768, 12, 12, 80, 51_864),
    "openai/whisper-medium": Architecture(1024, 24, 24, 80, 51_865),
    "openai/whisper-medium.en": Architecture(1024, 24, 24, 80, 51_864),
    "openai/whisper-large": Architecture(1280, 32, 32, 80, 51_865),
    "openai/whisper-large-v2": Architecture(1280, 32, 32, 80, 51_865),
    "openai/whisper-large-v3": Architecture(1280, 32, 32, 128, 51_866),
    "openai/whisper-large-v3-turbo": Architecture(1280, 32, 4, 128, 51_866),
    "distil-whisper/distil-small.en": Architecture(768, 12, 4, 80, 51_864),
    "distil-whisper/distil-medium.en": Architecture(1024, 24, 2, 80, 51_864),
    "distil-whisper/distil-large-v2": Architecture(1280, 32, 2, 80, 51_865),
    "distil-whisper/distil-large-v3": Architecture(1280, 32, 2, 128, 51_866),
    "distil-whisper/distil-large-v3.5": Architecture(1280, 32, 2, 128, 51_866),
}
"""Dimensions by hub id, from the configurations on the hub; used for random weights."""

ALIASES = {hub_id.split("/")[1].removeprefix("whisper-"): hub_id for hub_id in PUBLISHED} | {
    "large": "openai/whisper-large-v3",
    "large-v1": "openai/whisper-large",  # openai/whisper-large is version 1
    "turbo": "openai/whisper-large-v3-turbo",
}
