"""Engines for comparison with vLLM: faster-whisper, transformers, openai-whisper."""
