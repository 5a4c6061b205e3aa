"""Constants of the Whisper model."""

WINDOW_SECONDS, WINDOW_POSITIONS = 30, 1_500
"""Length of the encoder's input window in seconds, and the number of positions in its output."""
