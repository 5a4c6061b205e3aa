"""Engines transcribe audio: interface, settings, hardware, input pipeline, and one module for each engine."""
