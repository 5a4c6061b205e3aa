"""Options of every command, each declared once and validated."""
