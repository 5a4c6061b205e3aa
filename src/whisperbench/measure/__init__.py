"""The clock, the GPU readings beside it, and the score of what came out with its statistics."""
