"""CTranslate2's `model.bin`: a list of named arrays.

Little endian: u32 version, string spec, u32 revision, u32 count; per variable a string name, u8 rank,
u32 dimensions, u8 type, u32 bytes, data; then u32 count of aliases, two strings each.  A string is
u16 length and as many bytes, the last of them NUL.  Source: `_serialize` in CTranslate2's
model_spec.py.  The file is mapped, never executed, and every length is held against its size.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperbench.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

FORMAT = (6, "WhisperSpec", 3)  # version of the file, specification, its revision: as CTranslate2 4.8 writes them
TYPES = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS = {np.dtype("<f4"): "float32", np.dtype("<f2"): "float16"}
MAX_RANK = 3


def read_variables(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every variable of a `model.bin` by name, aliases included; the arrays are views of the mapped file.

    Raises:
        ModelError: the file cannot be read, is cut short, or is not a Whisper of CTranslate2.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ModelError(f"{path} cannot be read: {error}") from error
    reader = _Reader(path, data)
    found = reader.number("I"), reader.text(), reader.number("I")
    if found != FORMAT:
        raise reader.error(f"version, specification and revision are {found}; known is {FORMAT}. Convert it again")
    variables: dict[str, npt.NDArray[Any]] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        if name in variables:
            raise reader.error(f"{name} comes twice")
        variables[name] = reader.array(name)
    stored = set(variables)
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        if name not in stored or alias in variables:
            raise reader.error(f"alias {alias} of {name} has no meaning")
        variables[alias] = variables[name]
    if reader.offset != len(data):
        raise reader.error(f"{len(data) - reader.offset} bytes follow the end")
    return variables


class _Reader:
    """Reads forward through the file; a length that leads past its end is a ModelError."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self.offset = path, data, 0

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self._path} is not a readable CTranslate2 file at byte {self.offset}: {what[:300]}.")

    def number(self, kind: str) -> int:
        size = struct.calcsize("<" + kind)
        return int(struct.unpack("<" + kind, self._data[self._take(size) : self.offset])[0])

    def text(self) -> str:
        length = self.number("H")
        raw = self._data[self._take(length) : self.offset]
        if not raw.endswith(b"\0"):
            raise self.error("a text does not end with NUL")
        try:
            return raw[:-1].decode("ascii")
        except UnicodeDecodeError as error:
            raise self.error(f"a name is not ASCII: {raw[:80]!r}") from error

    def array(self, name: str) -> npt.NDArray[Any]:
        if (rank := self.number("B")) > MAX_RANK:
            raise self.error(f"{name} has {rank} dimensions")
        shape = [self.number("I") for _ in range(rank)]
        kind, size = self.number("B"), self.number("I")
        if kind not in TYPES:
            hint = " (bfloat16: convert it again with --quantization float16)" if kind == 5 else ""
            raise self.error(f"{name} has type {kind}{hint}")
        dtype = np.dtype(TYPES[kind])
        if math.prod(shape) * dtype.itemsize != size:
            raise self.error(f"{name} has shape {shape} of {dtype.name}, but {size} bytes")
        if size == 0:  # which no weight is; numpy has no view of nothing
            raise self.error(f"{name} is empty, its shape is {shape}")
        return np.frombuffer(self._data, dtype, math.prod(shape), self._take(size)).reshape(shape)

    def _take(self, size: int) -> int:
        if size > len(self._data) - self.offset:
            raise self.error(f"{size} bytes should follow, {len(self._data) - self.offset} do: the file is cut short")
        start, self.offset = self.offset, self.offset + size
        return start
