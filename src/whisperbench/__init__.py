"""Measure Whisper on vLLM: how accurate, how fast, and how sure of it."""

__version__ = "0.1.0"
