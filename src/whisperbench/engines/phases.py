"""How far an engine is that starts: read from the end of its log, by lines that vLLM 0.26 and 0.32 write."""

from __future__ import annotations

import re
from pathlib import Path

from whisperbench.files import tail

PHASES = (
    ("starting its processes", r"Initializing a V1 LLM engine"),
    ("loading weights", r"Starting to load model|checkpoint shards|Loading weights"),
    (
        "compiling",
        r"Starting torch\.compile|for vLLM's torch\.compile|Dynamo bytecode transform|Compiling a graph"
        r"|Warming up model for the compilation",
    ),
    ("sizing the cache", r"Initial profiling|KV cache (?:size|layout)|memory for KV cache"),
    ("capturing CUDA graphs", r"Capturing (?:[\w-]+ )*CUDA graphs|Capturing a cudagraph"),
    ("almost ready", r"init engine \("),
)
ANY_PHASE = re.compile("|".join(f"(?P<p{place}>{pattern})" for place, (_, pattern) in enumerate(PHASES)))
PERCENT = re.compile(r"(\d{1,3})%(?:\|| Completed)")  # a bar of tqdm


def phase_in(log: Path) -> str:
    """What the engine that writes `log` does now, with the percentage that it tells; empty where it has not said."""
    text = tail(log)
    *_, last = (None, *ANY_PHASE.finditer(text))
    if last is None:
        return ""
    phase = next(name for place, (name, _) in enumerate(PHASES) if last[f"p{place}"])
    told = PERCENT.search(re.split(r"[\r\n]", text[last.end() :])[0])
    return f"{phase}, {told[1]} %" if told else phase
