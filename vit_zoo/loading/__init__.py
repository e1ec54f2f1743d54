"""Loading: from what the user names to a config and tensors, and to a torch model."""
