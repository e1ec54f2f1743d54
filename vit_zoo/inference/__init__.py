"""Inference: predictions of a model or an exported file on images."""
