"""Output of the commands: results on stdout, progress and warnings on stderr, and the options that control them."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from vit_zoo.errors import InputError, with_flags


@dataclass(frozen=True)
class Output:
    """Where a command prints: results go to stdout, as text or as one JSON document; everything else goes to stderr."""

    json: bool
    quiet: bool
    verbose: bool

    def result(self, document: Any, text: Callable[[], str]) -> None:
        """Print the result of a command: `document` with --json, else `text()`, which is called only if it is printed."""
        if self.json:
            click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False))
        elif not self.quiet:
            # labels are text from a file: they must not contain terminal control sequences
            click.echo("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text()))

    def progress(self, line: str) -> None:
        """Print a line of progress with --verbose or on a terminal."""
        if self.verbose or (sys.stderr.isatty() and not self.quiet):
            click.echo(f"vitzoo: {line}", err=True)

    def warn(self, line: str) -> None:
        """Print a warning, with --quiet too."""
        click.echo(f"vitzoo: {line}", err=True)


def with_output(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --json, --quiet, --verbose and --debug to a command, and pass it an `Output` as `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Print progress and more details.")
    @click.option("--debug", is_flag=True, help="Print the traceback of an error.")
    @functools.wraps(command)
    def decorated(*args: Any, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> None:
        if quiet and verbose:
            raise InputError("--quiet and --verbose contradict each other")
        output = Output(as_json, quiet, verbose)
        with _notices(output):
            command(*args, output=output, **options)

    return decorated


@contextmanager
def _notices(output: Output) -> Iterator[None]:
    """Print what the logger `vit_zoo` tells the user as warnings, each line once."""
    import logging

    printed: set[str] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = with_flags(record.getMessage(), getattr(record, "options", ()))
            if line not in printed:
                printed.add(line)
                output.warn(line)

    logger, handler = logging.getLogger("vit_zoo"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _plain(document: Any) -> Any:
    """Convert pydantic models, or lists of them, to what `json.dumps` takes."""
    if isinstance(document, list):
        return [_plain(item) for item in document]
    return document.model_dump(mode="json") if hasattr(document, "model_dump") else document
