"""No process is left behind: signals, process groups, orphans, and which process works on what."""
