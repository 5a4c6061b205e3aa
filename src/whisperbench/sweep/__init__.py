"""Sweeps: grids and searches of configurations, their plan, their child runs and their progress."""
