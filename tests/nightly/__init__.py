"""Tests that take long, or start nodes of Ray, and two scripts: parallel_faults and soak (`make test-nightly`)."""
