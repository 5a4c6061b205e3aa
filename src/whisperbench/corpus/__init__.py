"""Corpora: utterances with audio and reference transcripts, and a digest of their content."""
