"""Runs on an MLflow server: preflight, writing, reading, uploading, and closing those that nobody works on."""
