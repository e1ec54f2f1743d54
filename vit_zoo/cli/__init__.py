"""The command line: parse, call one function, print."""

from vit_zoo.cli.edge import main

__all__ = ["main"]
