"""Long scripts with the real engine that break things and check the results; pytest does not collect them."""
