"""Detection of repetition loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.corpora import SAMPLE
from whisperbench.corpus.corpus import DEMO
from whisperbench.engines.repetition import is_repetition_loop

SENTENCE = "he hoped there would be stew for dinner turnips and carrots and bruised potatoes"
THAI = (
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ "
    "ทุกคนย่อมมีสิทธิและอิสรภาพทั้งปวงตามที่กำหนดไว้ในปฏิญญานี้ โดยปราศจากความแตกต่างไม่ว่าชนิดใดๆ ดังเช่น เชื้อชาติ ผิว เพศ ภาษา ศาสนา"
)
HINDI = (
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और "
    "परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए। सभी को इस घोषणा में सन्निहित सभी अधिकारों और आज़ादियों को प्राप्त करने का हक़ है"
)


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        "",
        "no, no, no, no, no, no!",
        "and again and again and again, they came",
        f"{SENTENCE} {SENTENCE} he slept",
        "row, row, row your boat, row, row, row your boat, gently down the stream",
        THAI,
        HINDI,
    ],
)
def test_speech_is_speech(text: str) -> None:
    """A word or a phrase that is repeated a few times is not a loop, in any script."""
    assert not is_repetition_loop(text, tokens=len(text.split()), seconds=5.0)


def test_references_are_speech() -> None:
    """No reference of the demo and of the LibriSpeech sample is a loop."""
    manifests: list[Path] = [folder / "manifest.jsonl" for folder in (DEMO, SAMPLE)]
    lines = [line for path in manifests if path.exists() for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) >= 8
    assert [text for text in texts if is_repetition_loop(text, tokens=1, seconds=30.0)] == []


@pytest.mark.parametrize(
    "text",
    [
        f"{SENTENCE} {'and the rest of it ' * 9} and the re",
        f"{'so ' * 100}he slept",
        "Thank you. " * 20,
        "!" * 224,
        "H" + "m" * 220,
        "ご視聴ありがとうございました" * 4,
        "好" * 12,
    ],
)
def test_a_phrase_without_end_is_a_loop(text: str) -> None:
    """A phrase is repeated four times at the end, or often anywhere; the last repetition may be incomplete."""
    assert is_repetition_loop(text, tokens=20, seconds=20.0)


def test_more_tokens_than_the_seconds_can_hold_are_a_loop() -> None:
    """Two hundred tokens are half a minute of speech, not five seconds."""
    assert is_repetition_loop(SENTENCE, tokens=200, seconds=5.0)
    assert not is_repetition_loop(SENTENCE, tokens=200, seconds=25.0)
