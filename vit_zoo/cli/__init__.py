"""Command line `vitzoo`: each command parses its options, calls one function of the library, and prints the result."""

from vit_zoo.cli.entry_point import main

__all__ = ["main"]
