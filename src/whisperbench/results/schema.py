"""JSON files of a result, read as frozen records: a file may have travelled, so every value's type is checked."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def read_json(record: type[T], content: bytes) -> T:
    """`content` as a `record`: exact types, finite numbers, texts that can be written, and what annotations ask for.

    Raises:
        ValueError: the message names the value and says what it should be.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast("Any", record)).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    return found


@functools.cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter, with_config

    return TypeAdapter(with_config(strict=True, allow_inf_nan=False)(record))
