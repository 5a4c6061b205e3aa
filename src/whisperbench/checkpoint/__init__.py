"""The weights: a directory that an engine loads, its architecture, tokenizer and files."""
