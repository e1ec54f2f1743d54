"""The registry: from a name to the config of an architecture, by the data in `zoo/`."""
