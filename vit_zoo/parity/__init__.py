"""Parity: whether an artifact, or another checkpoint, computes the model; with which evidence, and where it parts from it."""
