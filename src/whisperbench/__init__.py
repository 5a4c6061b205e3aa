"""Benchmark of OpenAI Whisper on vLLM: word error rate, throughput and their confidence intervals."""

__version__ = "0.1.0"
