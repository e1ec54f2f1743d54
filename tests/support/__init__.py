"""Helpers that several test modules share; the benchmarks use some of them too."""
