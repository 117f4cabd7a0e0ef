"""Data sets, measures, benchmarks and their tables. Knows no training."""
