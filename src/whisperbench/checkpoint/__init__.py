"""Checkpoints: the directory that an engine loads, its architecture, tokenizer and weights."""
