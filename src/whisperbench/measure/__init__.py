"""Timed passes, GPU readings during them, and error counts of the transcripts."""
