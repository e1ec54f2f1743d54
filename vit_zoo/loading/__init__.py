"""Loading: resolves what the user names to a config and tensors, builds torch models, and writes checkpoints."""
