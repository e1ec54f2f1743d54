"""What every verb shares: its options for output, and the way it speaks."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from vit_zoo.errors import InputError


@dataclass(frozen=True)
class Voice:
    """Results go to stdout, as text or as one JSON document; everything else to stderr."""

    json: bool
    quiet: bool
    verbose: bool

    def result(self, document: Any, text: Callable[[], str]) -> None:
        """The outcome of a verb: the document with --json, else its text, which is made only then."""
        if self.json:
            click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False))
        elif not self.quiet:
            click.echo("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text()))  # labels are anyone's text

    def progress(self, line: str) -> None:
        """What is being done, for a person who waits."""
        if self.verbose or (sys.stderr.isatty() and not self.quiet):
            click.echo(f"vitzoo: {line}", err=True)

    def warn(self, line: str) -> None:
        """What must not be missed; --quiet does not silence it."""
        click.echo(f"vitzoo: {line}", err=True)


def speaking(command: Callable[..., None]) -> Callable[..., None]:
    """Options --json, --quiet, --verbose and --debug, handed to the verb as its `voice`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
    @click.option("-v", "--verbose", is_flag=True, help="Say what is being done.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def spoken(*args: Any, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> None:
        if quiet and verbose:
            raise InputError("--quiet and --verbose contradict each other")
        command(*args, voice=Voice(as_json, quiet, verbose), **options)

    return spoken


def _plain(document: Any) -> Any:
    """Pydantic models, or lists of them, as `json.dumps` takes them."""
    if isinstance(document, list):
        return [_plain(item) for item in document]
    return document.model_dump(mode="json") if hasattr(document, "model_dump") else document


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def pairs(fields: Mapping[str, str]) -> str:
    """Names and values, a line each."""
    return table([(f"{name}:", value) for name, value in fields.items()])
