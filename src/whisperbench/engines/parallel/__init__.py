"""Several engines as one: Ray runs each in a process of its own, on this host or on a cluster."""
