"""Tests that take long, or start nodes of Ray (`make test-nightly`)."""
