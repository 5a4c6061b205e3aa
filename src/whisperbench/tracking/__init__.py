"""Runs on an MLflow server: connection, logging, reading, upload, and the runs of dead processes."""
