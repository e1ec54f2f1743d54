"""The command line: parse, call one function, print."""

from vit_zoo.cli.entry_point import main

__all__ = ["main"]
