"""HTML from the templates in `data/pages`.

Every value is escaped for HTML, and control characters and bidirectional marks become escapes like `\\x1b`.
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
    """The Jinja environment; `script_hash` is the hash of `script` for the content security policy of a page."""
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
    found.globals |= {"script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704 - from the package
    return found


def render(template: str, **values: object) -> Markup:
    """Render a template of `data/pages`.

    Raises:
        jinja2.UndefinedError: a value that the template uses is missing.
    """
    return Markup(environment().get_template(template).render(values))  # noqa: S704 - its values are escaped
