"""Export of a model to verified files."""
