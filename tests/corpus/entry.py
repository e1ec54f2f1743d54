"""Rows of the corpus: how a bad file is made, the commands that read it, and what has to come of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Maker = Callable[[Path], None]  # writes an entry's files into its folder

INPUT, FAILED, REFUSED = 2, 3, 7  # exit codes
BASE = "BASE"  # in arguments: the folder of valid files
OUT = "OUT"  # in arguments: an empty folder for what a command writes


@dataclass(frozen=True)
class Command:
    """A command line and the exit codes that are right for it.

    `names` must occur in the error: by default, the first file of the entry among the arguments. `session` says that
    onnxruntime has to run the file, so that more time and memory are allowed.
    """

    arguments: tuple[str, ...]
    codes: tuple[int, ...]
    session: bool = False
    names: str | None = None


@dataclass(frozen=True)
class Entry:
    """A bad file, or several. `former` marks a fault of an earlier version; `slow` ones are left out of samples."""

    name: str
    make: Maker = field(repr=False)
    commands: tuple[Command, ...]
    former: bool = False
    slow: bool = False


def command(line: str | Sequence[str], *codes: int, session: bool = False, names: str | None = None) -> Command:
    """Return a command from a line as in a shell, or from its arguments."""
    arguments = shlex.split(line) if isinstance(line, str) else list(line)
    return Command(tuple(arguments), codes or (REFUSED,), session, names)


def later(maker: Callable[[], Maker]) -> Maker:
    """Return a maker that is made when it is needed: of large files."""

    def make(folder: Path) -> None:
        maker()(folder)

    return make


def content(name: str, data: bytes | str | Callable[[], bytes]) -> Maker:
    """Return a maker of one file with this content, which a function may make: a large one."""

    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = data() if callable(data) else data
        path.write_bytes(made if isinstance(made, bytes) else made.encode())

    return make
