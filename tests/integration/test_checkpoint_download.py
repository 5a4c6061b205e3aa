"""A model of the hub is fetched, taken from its cache, or missed with a message that says what works without."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkpoints import checkpoint_directory
from tests.support.hub import COMMIT, NOWHERE, FakeHub, run_with_hub

RESOLVE = """
import json, sys
from pathlib import Path
from whisperbench.errors import ModelError
from whisperbench.checkpoint.checkpoint import resolve_model
try:
    found = resolve_model(sys.argv[1], sys.argv[2], cache_dir=Path(sys.argv[3]), random_weights=sys.argv[4] == "random")
    print(json.dumps([found.model_id, found.path, found.revision]))
except ModelError as error:
    print(json.dumps(str(error)))
"""


def resolve_with_hub(endpoint: str, tmp_path: Path, *args: str, **environment: str) -> tuple[object, float]:
    """What a fresh process makes of a hub at `endpoint`, and the seconds it took."""
    model, revision, weights = [*args, "real"][:3]
    started = time.perf_counter()
    arguments = (model, revision, str(tmp_path / "cache"), weights)
    done = run_with_hub(endpoint, tmp_path / "hub", RESOLVE, *arguments, **environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


@pytest.mark.parametrize("is_listening", [False, True])
def test_an_unreachable_hub_fails_soon_with_remedies(tmp_path: Path, is_listening: bool) -> None:
    """The port is closed, or a proxy accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        if not is_listening:
            server.close()
        message, seconds = resolve_with_hub(endpoint, tmp_path, "tiny.en", "main")
    assert seconds < 15
    for words in ("openai/whisper-tiny.en cannot be downloaded", "local checkpoint directory", "model=demo", "dummy"):
        assert words in str(message)


def test_random_weights_of_a_published_model_never_ask_the_hub(tmp_path: Path) -> None:
    """load_format=dummy works on a machine without a network."""
    found, _ = resolve_with_hub(NOWHERE, tmp_path, "turbo", "main", "random")
    assert isinstance(found, list)
    assert found[0] == "openai/whisper-large-v3-turbo"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that holds the model team/whisper, as openai/whisper-large-v3 is stored: with copies nobody needs."""
    files = checkpoint_directory(tmp_path / "files")
    for name in ("pytorch_model.bin", "model.fp32-00001-of-00002.safetensors", "flax_model.msgpack"):
        (files / name).write_bytes(b"not needed")
    with FakeHub("models", "team/whisper", files) as server:
        yield server


def test_a_hub_model_is_downloaded_and_known_by_its_commit(hub: FakeHub, tmp_path: Path) -> None:
    """Only what the engine reads is fetched, and the cached snapshot serves when the hub is gone."""
    found, _ = resolve_with_hub(hub.endpoint, tmp_path, "team/whisper", "main")
    assert isinstance(found, list), found
    assert (found[0], found[2]) == ("team/whisper", COMMIT)
    assert Path(found[1]).name == COMMIT
    assert hub.fetched >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not {name for name in hub.fetched if name.endswith((".bin", ".msgpack")) or "fp32" in name}
    offline, _ = resolve_with_hub(NOWHERE, tmp_path, "team/whisper", "main", HF_HUB_OFFLINE="1")
    unreachable, _ = resolve_with_hub(NOWHERE, tmp_path, "team/whisper", "main")
    assert offline == unreachable == found


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_download_that_was_altered_is_refused(hub: FakeHub, tmp_path: Path, name: str) -> None:
    """Its content is not that of the commit that the run would record."""
    found, _ = resolve_with_hub(hub.endpoint, tmp_path, "team/whisper", "main")
    file = Path(found[1]) / name  # type: ignore[index]
    content = file.read_bytes()
    file.write_bytes(content + b" " if name == "config.json" else content[:-1] + b"1")
    message, _ = resolve_with_hub(NOWHERE, tmp_path, "team/whisper", "main", HF_HUB_OFFLINE="1")
    assert f"{name} was altered after its download. Delete {file.resolve()}" in str(message)


def test_what_the_hub_does_not_have_is_named(hub: FakeHub, tmp_path: Path) -> None:
    """A revision, a model, and weights as safetensors are told apart."""
    revision, _ = resolve_with_hub(hub.endpoint, tmp_path, "team/whisper", "v9")
    assert "team/whisper has no branch, tag or commit 'v9'" in str(revision)
    missing, _ = resolve_with_hub(hub.endpoint, tmp_path, "team/other", "main")
    assert "The hub has no model team/other" in str(missing)
    (hub.files / "model.safetensors").unlink()
    weights, _ = resolve_with_hub(hub.endpoint, tmp_path, "team/whisper", "main")
    assert "has no weights as safetensors" in str(weights)
