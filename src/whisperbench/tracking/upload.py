"""What an upload was asked for: its options, and which bundles they name."""

from __future__ import annotations

import dataclasses
import glob
from pathlib import Path

from whisperbench.errors import BundleError
from whisperbench.results.bundle import CONTENTS, PARTIAL


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Bundles to log, and measurements among them that were cut off and cannot be."""

    bundles: tuple[Path, ...]
    partial: tuple[Path, ...]


def find_bundles(wanted: str) -> Found:
    """The bundles that a path or a pattern names, oldest first.

    Raises:
        BundleError: it names none.
    """
    path = Path(wanted).expanduser()
    named = [path] if path.exists() else [Path(name) for name in glob.glob(str(path))]  # noqa: PTH207 - Path.glob takes no absolute pattern
    candidates = {inside for each in named for inside in (each, *each.glob("*"))}
    bundles = sorted(each for each in candidates if (each / CONTENTS).is_file() and not each.name.endswith(PARTIAL))
    partial = sorted(each for each in candidates if each.is_dir() and each.name.endswith(PARTIAL))
    if not bundles:
        cut_off = f" {len(partial)} measurement(s) there were cut off and hold no result." if partial else ""
        raise BundleError(
            f"bundles={wanted!r} names no result bundle: none of {len(named)} path(s) holds a {CONTENTS}.{cut_off}"
        )
    return Found(tuple(bundles), tuple(partial))
