"""The model: its spec and config, one forward for every back end, and the torch module."""
