"""A `model.bin` that is cut short, foreign or contradicts itself is a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ctranslate2_models import Arrays, pack
from whisperbench.checkpoint.ctranslate2 import hugging_face_tensors, read_architecture, read_variables
from whisperbench.errors import ModelError

SMALL: Arrays = {"a/weight": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(3, np.int8)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\6\0", "buffer of 4 bytes"),
        (pack(SMALL, header=(5, "WhisperSpec", 3)), r"are \(5, 'WhisperSpec', 3\), expected"),
        (pack(SMALL) + b"more", "4 bytes follow the end"),
        (pack(SMALL, [("c", "nothing")]), "nothing"),
        (pack({"a": np.zeros(4, np.float32)})[:-8], "buffer is smaller"),
        (
            pack(SMALL).replace(b"\2\2\0\0\0\3\0\0\0", b"\2\xff\xff\xff\xff\xff\xff\xff\xff"),
            "readable CTranslate2 file",
        ),
        (pack(SMALL).replace(b"\2\2\0\0\0\3\0\0\0", b"\2\2\0\0\0\2\0\0\0"), "12 bytes"),
        (pack({"a": np.zeros(4, np.int8)}).replace(b"\4\0\0\0\1\4", b"\4\0\0\0\5\4"), "bfloat16"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """A file that is cut short, foreign or contradicts itself is named with what is wrong."""
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        read_variables(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.bin"


FUZZED = pack(SMALL | {"decoder/embeddings/weight": np.ones((4, 64), np.float32)}, [("c", "a/weight")])


@settings(max_examples=400, deadline=None)
@given(
    cut=st.integers(0, len(FUZZED)),
    flips=st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), max_size=6),
)
def test_no_damage_does_more_than_raise_a_model_error(scratch: Path, cut: int, flips: list[tuple[int, int]]) -> None:
    """However a file is cut and its bytes are changed, it is read or refused."""
    data = bytearray(FUZZED)
    for position, value in flips:
        data[position] = value
    scratch.write_bytes(bytes(data[: cut or None]))
    try:
        variables = read_variables(scratch)
        hugging_face_tensors(variables, read_architecture(variables, scratch), scratch)
    except ModelError:
        return
    raise AssertionError("the file is far too small for a Whisper")
