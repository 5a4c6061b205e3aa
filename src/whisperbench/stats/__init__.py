"""Statistics of WER and rates: intervals and tests over arrays of numbers."""
