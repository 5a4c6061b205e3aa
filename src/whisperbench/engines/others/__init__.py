"""Other engines to compare with: faster-whisper, transformers, openai-whisper."""
