"""Many configurations become runs: a grid or a search, what is done already, and how far it is."""
