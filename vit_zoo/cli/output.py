"""Output of the commands: results on stdout, progress and warnings on stderr, and the options that control them."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from vit_zoo.errors import InputError, with_flags

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vit_zoo.cli.live_line import LiveLine


@dataclass(frozen=True)
class Output:
    """Where a command prints: results go to stdout, as text or as one JSON document; everything else goes to stderr."""

    json: bool
    quiet: bool
    verbose: bool
    line: LiveLine | None = None  # the line of progress, on a terminal
    printed: set[str] = field(default_factory=set)  # warnings, each of which is printed once

    def result(self, document: Any, text: Callable[[], str]) -> None:
        """Print the result of a command: `document` with --json, else `text()`, which is called only if it is printed."""
        with self._alone():
            self._result(document, text)

    def _result(self, document: Any, text: Callable[[], str]) -> None:
        if self.json:
            click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False))
        elif not self.quiet:
            # labels are text from a file: they must not contain terminal control sequences
            click.echo("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text()))

    def progress(self, line: str) -> None:
        """Print a line of progress with --verbose."""
        if self.verbose:
            with self._alone():
                click.echo(f"vitzoo: {line}", err=True)

    def warn(self, line: str) -> None:
        """Print a warning, with --quiet too; the same one only once."""
        if line not in self.printed:
            self.printed.add(line)
            with self._alone():
                click.echo(f"vitzoo: {line}", err=True)

    def suggest(self, *lines: str) -> None:
        """Print what to do next, for a person at a terminal."""
        if not self.json and not self.quiet and sys.stdout.isatty() and sys.stderr.isatty():
            with self._alone():
                for i, line in enumerate(lines):
                    click.echo(f"{'next:' if i == 0 else '     '} {line}", err=True)

    def _alone(self) -> AbstractContextManager[None]:
        """Keep the line of progress away within the block."""
        return nullcontext() if self.line is None else self.line.paused()


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
        line = None
        if not quiet and is_terminal():
            from vit_zoo.cli.live_line import LiveLine

            line = LiveLine(command.__name__)
        output = Output(as_json, quiet, verbose, line)
        try:
            with _logged(output):
                command(*args, output=output, **options)
        finally:
            if line is not None:
                line.close()

    return decorated


def is_terminal() -> bool:
    """Return whether stderr is a terminal on which a line can be drawn again."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def _logged(output: Output) -> Iterator[None]:
    """Print what the logger `vit_zoo` tells the user: warnings, and with --verbose progress."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = with_flags(record.getMessage(), getattr(record, "options", ()))
            (output.warn if record.levelno >= logging.WARNING else output.progress)(line)

    level = logging.INFO if output.verbose else logging.WARNING
    logger, handler = logging.getLogger("vit_zoo"), Handler(level)
    before = logger.level
    logger.addHandler(handler)
    if output.verbose:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _plain(document: Any) -> Any:
    """Convert pydantic models, or lists of them, to what `json.dumps` takes."""
    if isinstance(document, list):
        return [_plain(item) for item in document]
    return document.model_dump(mode="json") if hasattr(document, "model_dump") else document
