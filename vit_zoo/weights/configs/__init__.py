"""Configs of other libraries: transformers, timm, and how their image processors prepare images."""
