"""What was asked for: the options of every command, validated, and nothing inferred."""
