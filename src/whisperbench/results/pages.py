"""HTML and SVG from the templates in `data/pages`: whatever a text holds, it is shown and not obeyed.

Every value that a template shows is made visible (control characters, terminal escapes and marks that reorder
text appear as what they are) and escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from whisperbench.text import escape_control

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parents[1] / "data" / "pages"


@functools.cache
def environment() -> Environment:
    """The templates; `script` is the one that a page may run, and `script_hash` what its policy knows it by."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else escape_control(str(value))

    found = Environment(
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found.globals |= {"script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704 - our own file
    return found


def render(template: str, **values: object) -> Markup:
    """A template of `data/pages` with these values; a value that the template names and nobody gives is an error."""
    return Markup(environment().get_template(template).render(values))  # noqa: S704 - its values are escaped
