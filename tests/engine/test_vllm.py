"""Both vLLM engines on real speech: the recorded texts, the known WER, the texts of transformers, and their end.

One engine of each kind serves the whole module; the tests that kill or stop it stand last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from tests.engine.conftest import assert_nearly_all_equal
from tests.support.commands import called, still_running
from tests.support.corpora import DEMO_TRANSCRIPTS
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.corpus.audio import load_audio
from whisperbench.corpus.corpus import Corpus, Utterance, load_corpus
from whisperbench.engines.base import Engine
from whisperbench.engines.vllm.pipelined import VllmPipelined
from whisperbench.engines.vllm.stock import VllmStock
from whisperbench.engines.watchdog import stall_limit
from whisperbench.errors import EngineError
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import score
from whisperbench.measure.timing import result_of

KNOWN_WER = {"test-clean": 3.07, "test-other": 12.26, "dev-clean": 9.19}
"""WER of tiny.en on the sample in percent, in float32."""

Transcripts = dict[str, UtteranceResult]


@pytest.fixture(scope="module")
def engine(started: Callable[..., Engine]) -> VllmPipelined:
    found = started(dtype="float32")  # in bfloat16 the rounding depends on the batch
    assert isinstance(found, VllmPipelined)
    return found


@pytest.fixture(scope="module")
def stock(started: Callable[..., Engine]) -> VllmStock:
    found = started(engine="vllm-stock", dtype="float32")
    assert isinstance(found, VllmStock)
    return found


@pytest.fixture(scope="module")
def pipelined(engine: VllmPipelined, utterances: list[Utterance]) -> Transcripts:
    return transcripts(engine, utterances)


def transcripts(engine: Engine, utterances: list[Utterance]) -> Transcripts:
    by_id = {utterance.utt_id: utterance for utterance in utterances}
    found = {text.utt_id: result_of(by_id[text.utt_id], text, 0, 0.0) for text in engine.transcribe(utterances)}
    return {utt_id: found[utt_id] for utt_id in by_id}


def processes_of(engine: Engine) -> list[psutil.Process]:
    """The engine's processes without this one; all of them are descendants of this one."""
    found = [psutil.Process(pid) for pid in engine.pids() - {os.getpid()}]
    assert found
    assert set(found) <= set(psutil.Process().children(recursive=True))
    return found


def test_the_recorded_texts(pipelined: Transcripts, demo: list[Utterance]) -> None:
    """Those of an earlier run, word by word."""
    assert {u.utt_id: pipelined[u.utt_id].hypothesis for u in demo} == DEMO_TRANSCRIPTS


def test_the_known_wer(pipelined: Transcripts, librispeech_sample: Path) -> None:
    """On each split within 0.3 points."""
    for split, known in KNOWN_WER.items():
        ids = {u.utt_id for u in load_corpus(str(librispeech_sample), split, None).utterances}
        found = score([t for t in pipelined.values() if t.utt_id in ids], "en").wer
        assert found == pytest.approx(known, abs=0.3), split


def test_the_texts_of_transformers(checkpoint: Checkpoint, pipelined: Transcripts, utterances: list[Utterance]) -> None:
    """Greedy decoding with transformers' own Whisper."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(checkpoint.path)
    model = WhisperForConditionalGeneration.from_pretrained(checkpoint.path, dtype=torch.float32).eval()
    model.generation_config.suppress_tokens = None  # the engine suppresses nothing
    model.generation_config.begin_suppress_tokens = None
    prompt = list(checkpoint.prompt_token_ids("en"))
    theirs: dict[str, str] = {}
    for first in range(0, len(utterances), 10):
        batch = utterances[first : first + 10]
        audio = [load_audio(utterance.audio) for utterance in batch]
        features = processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
        start = torch.tensor([prompt] * len(batch))
        with torch.no_grad():
            tokens = model.generate(features, decoder_input_ids=start, do_sample=False, max_new_tokens=224)
        for utterance, text in zip(batch, processor.batch_decode(tokens, skip_special_tokens=True), strict=True):
            theirs[utterance.utt_id] = text.strip()
    assert_nearly_all_equal(pipelined, theirs)


def test_odd_audio_is_transcribed(engine: VllmPipelined, demo: list[Utterance], tmp_path: Path) -> None:
    """Silence, a tenth of a second, 8 kHz stereo and 40 s."""
    speech = load_audio(demo[0].audio)
    files = {
        "silence": (np.zeros(32_000, np.float32), 16_000),
        "short": (speech[8_000:9_600], 16_000),
        "stereo": (np.stack([speech[::2], speech[::2]], axis=1), 8_000),
        "long": (np.concatenate([speech, np.zeros(16_000, np.float32)] * 14)[: 40 * 16_000], 16_000),
    }
    for name, (samples, rate) in files.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    found = transcripts(engine, list(load_corpus(str(tmp_path), "all", None).utterances))
    assert found.keys() == files.keys()
    assert found["long"].windows == 2
    assert "experience" in found["stereo"].hypothesis.lower()
    assert found["long"].hypothesis.lower().count("experience") >= 10


def test_an_engine_that_is_killed_is_an_error(engine: VllmPipelined, utterances: list[Utterance]) -> None:
    """The texts that were finished have been returned, the next call raises, and no process is left."""
    processes = processes_of(engine)
    texts = engine.transcribe(Corpus("c", "all", tuple(utterances), "c").copied(5))
    assert next(texts).hypothesis
    called("VLLM", processes)[0].kill()
    with pytest.raises(EngineError, match="The engine died while it worked"):
        list(texts)
    engine.close()
    assert still_running(processes) == []


def test_vllm_stock_gives_the_same_texts(stock: VllmStock, pipelined: Transcripts, utterances: list[Utterance]) -> None:
    """Features that are equal bit by bit give equal texts and equally many tokens."""
    found = transcripts(stock, utterances)
    assert {k: (t.hypothesis, t.tokens) for k, t in found.items()} == {
        k: (t.hypothesis, t.tokens) for k, t in pipelined.items()
    }


def test_an_engine_that_stops_is_ended(stock: VllmStock, demo: list[Utterance]) -> None:
    """Its process is suspended, as by a GPU that hangs: past the limit it is killed, and the error names the stall."""
    processes = processes_of(stock)
    called("VLLM", processes)[0].suspend()
    with pytest.raises(EngineError, match="no progress for"), stall_limit(stock, 3.0) as heartbeat:
        list(stock.transcribe(heartbeat.of(demo)))
    stock.close()
    assert still_running(processes) == []
