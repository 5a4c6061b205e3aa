"""Leaderboards, paired tests, the regression gate, differences and reports: pure functions over run records."""
