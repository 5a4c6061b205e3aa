"""vLLM: its engine process, its model and attention, and exact log-mel features."""
