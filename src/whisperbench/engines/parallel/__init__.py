"""Several engines as one, each in a Ray actor on this host or on a cluster."""
