"""Weights in and out: one engine, one table of rules per dialect, used in both directions."""
