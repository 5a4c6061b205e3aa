"""What goes in: a corpus as utterances, checked and digested; and a checkpoint that an engine loads."""
