"""Weights: translation between the tensors of other libraries and ours, by one table of rules for each dialect."""
