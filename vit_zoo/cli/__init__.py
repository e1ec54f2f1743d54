"""Command line `vitzoo`: each command parses its options, calls one function of the library, and prints the result."""

from __future__ import annotations

from vit_zoo.cli import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run `vitzoo` with the arguments of this process, and exit with its exit code."""
    code = 1
    try:
        signals.install()
        from vit_zoo.cli.entry_point import run_process

        code = run_process()
    except BaseException:
        if signals.received() is None:
            raise
        signals.tell()  # it came while the entry point was imported, or after its last line
    signals.leave(code)
