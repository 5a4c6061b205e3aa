"""Options of the doctor."""

from __future__ import annotations

import dataclasses

from whisperbench.options.benchmark import MAIN
from whisperbench.options.record import Options, option
from whisperbench.options.rules import CLUSTER, NON_EMPTY, TRUE_OR_FALSE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig(Options):
    """Options of the doctor flow."""

    model: str = option(MAIN["model"].default, NON_EMPTY, "Model that is going to be measured.")
    model_revision: str = option(
        MAIN["model_revision"].default, NON_EMPTY, "Branch, tag or commit of a Hugging Face model."
    )
    corpus: str = option(MAIN["corpus"].default, NON_EMPTY, "Corpus that is going to be transcribed.")
    split: str = option(MAIN["split"].default, NON_EMPTY, "Part of the corpus.")
    results_dir: str = option(MAIN["results_dir"].default, NON_EMPTY, "Directory for result bundles.")
    ray_address: str = option("none", CLUSTER, "HOST:PORT of a Ray cluster that is going to be used.")
    json: bool = option(False, TRUE_OR_FALSE, "Print one JSON list instead of lines.")
