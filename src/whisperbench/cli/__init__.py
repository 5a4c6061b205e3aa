"""What a person at a terminal sees: options, bars, live tables and colours."""
