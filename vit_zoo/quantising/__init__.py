"""Int8 that keeps its answers: images to calibrate with, ranges found on them, and the gate that decides."""
