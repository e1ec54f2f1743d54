"""Exporters: from a model and export options to a verified file."""
