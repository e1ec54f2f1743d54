"""The table of an evaluation as a CSV file, which replaces only tables of earlier evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import CannotWrite, InputError
from vit_zoo.files import write_text
from vit_zoo.files.atomic import check_target
from vit_zoo.files.sniff import reading

if TYPE_CHECKING:
    from vit_zoo.inference.evaluate.result import Evaluation

HEADERS = ("path,label,predicted,", "path,shared_neighbours")  # the beginning of every table


def check_table(path: Path, sources: Iterable[Path] = ()) -> None:
    """Raise CannotWrite if a table cannot be written there; called before slow work.

    What is replaced must be a table of an earlier evaluation: it could be the table of labels.
    """
    check_target(path)
    if not path.exists():
        return
    if any(source.exists() and path.samefile(source) for source in sources):
        raise InputError("is evaluated, and cannot be the result too", where=path)
    with reading(path), path.open("rb") as file:
        start = file.read(64).decode(errors="replace")
    if not start.startswith(HEADERS):
        raise CannotWrite("already exists and is no result of `vitzoo evaluate`", where=path, hint="name another file")


def write_table(done: Evaluation, path: Path) -> None:
    """Write a row for each image. Raises CannotWrite."""
    check_table(path)
    write_text(path, done.table.csv())
