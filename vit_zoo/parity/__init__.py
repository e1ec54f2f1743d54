"""Parity checks: proof that an exported file, or another checkpoint, computes its model, and where it first diverges."""
