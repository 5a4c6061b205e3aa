"""Signals, process groups, and the end of child processes."""
