"""Memory of the input pipeline with a model that is a little slower than its readers."""

from __future__ import annotations

import subprocess
import sys

from tests.support.commands import python_path

TAKES_ONLY = """
import collections, io, resource, time
import numpy as np, soundfile
from whisperbench.engines.pipeline import PipelineLimits, feed, limit_heap_growth
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.windows import WindowOutput

file = io.BytesIO()
soundfile.write(file, np.zeros(7 * 16_000, np.float32), 16_000, format="WAV")

class Audio:
    name = "7 s"
    def open(self, mode):
        return io.BytesIO(file.getvalue())

class Model:  # 200 windows a second, readers 320
    def __init__(self):
        self.windows = collections.deque()
    @property
    def in_flight(self):
        return len(self.windows)
    def prepare(self, window):
        time.sleep(0.05)
        return np.ones(768_000, np.uint8)
    def submit(self, window, prepared):
        self.windows.append(window)
    def step(self):
        time.sleep(0.14)
        return [WindowOutput(self.windows.popleft(), "a text", 2) for _ in range(min(28, len(self.windows)))]

limit_heap_growth()
for count in (500, 3_000):
    given = [Utterance(utt_id=str(i), audio=Audio(), reference=None, speaker=None) for i in range(count)]
    for _ in feed(Model(), given, PipelineLimits("split", 16, 256, 64)):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_corpus() -> None:
    """With as many waiting as in flight, the peak grew by 264 MiB from 500 to 3,000 utterances."""
    command = [sys.executable, "-c", TAKES_ONLY]
    done = subprocess.run(command, env=python_path(), capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second - first < 120, "MiB of a client that has about 1,500"
