"""Options of every command: one declaration per option, validated, with nothing inferred."""
