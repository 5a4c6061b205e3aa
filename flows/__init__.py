"""The verbs: one module per entry point of MLproject, each a command of its own."""
