"""Options of the upload of result bundles."""

from __future__ import annotations

import dataclasses

from whisperbench.options.record import Options, option
from whisperbench.options.rules import NON_EMPTY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfig(Options):
    """Options of the upload flow."""

    bundles: str = option(
        "results", NON_EMPTY, "A result bundle, a directory of them, or a quoted pattern such as 'results/20261122*'."
    )
