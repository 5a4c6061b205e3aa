"""Content of a run: its names, comparability keys and data, and its recording and bundle on local disk."""
