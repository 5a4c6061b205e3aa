"""Tests that take long, or start nodes of Ray, and the script `soak` (`make test-nightly`)."""
