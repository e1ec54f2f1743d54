"""Lists of images: folders, patterns, list files, columns of tables and tar shards, in an order that is always the same.

Nothing is held in memory but the names in one folder, and no image is opened: a list may have many millions.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, MissingDependency, Option, did_you_mean
from vit_zoo.files.images import read_embedded_image, read_image
from vit_zoo.files.sniff import reading, sniff
from vit_zoo.files.tar_shards import tar_members

if TYPE_CHECKING:
    from PIL.Image import Image

    Sources = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
TEXT, CSV, PARQUET, TAR = ".txt", ".csv", ".parquet", ".tar"
TABLES = (CSV, PARQUET)
COLUMNS = ("path", "file_name", "filename", "file", "image")  # that hold paths, if the user names none
COLUMN = Option("column", "NAME")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that can be read.

    Attributes:
        name: How the user knows it: its path as given, with `/`; `shard.tar/member.jpg` for a member of an archive.
        path: The file to open.
        offset: Where the image begins in the file.
        size: Its bytes there; None for a whole file.
        label: The name of its class, if the list states one: in a column, in a member `KEY.cls` of the archive, or by the
            top-level subfolder that it is in.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None
    label: str | None = None

    def read(self) -> Image:
        """Return the image, upright and opaque. Raises as `files.images.read_image`."""
        if self.size is None:
            return read_image(Path(self.path))
        return read_embedded_image(Path(self.path), self.offset, self.size, self.name)


def list_images(sources: Sources, *, column: str | None = None, label_column: str | None = None) -> Iterator[ImageRef]:
    """Yield the images that sources stand for, in the order of the sources.

    Args:
        sources: One source or several: an image file; a folder, for the image files in it and its subfolders, sorted, by their
            suffix and without hidden ones; a pattern such as `photos/**/*.jpg`; a `.txt` file with a path in each line; a
            `.csv` or `.parquet` table with a column of paths; a `.tar` archive, such as a shard of WebDataset. Relative paths
            in a file are relative to its folder.
        column: The column of paths in tables; by default the only one, or `path`, `file_name`, `filename`, `file` or `image`.
        label_column: The column of tables that states the labels.

    Raises:
        InputError: A source does not exist, has no images or is of an unknown kind, or a table has no such column.
        RefusedContent: A source cannot be read.
        MissingDependency: Parquet files need pyarrow.
    """
    given = [Path(sources)] if isinstance(sources, str | os.PathLike) else [Path(source) for source in sources]
    if not given:
        raise InputError("no images given")
    if (column or label_column) and not any(source.suffix.lower() in TABLES for source in given):
        what = _option("column", column) if column else _option("label_column", label_column)
        raise InputError(f"{what} applies to CSV and Parquet tables", options=[what])
    for source in given:
        images = _images_of(source, column, label_column)
        first = next(images, None)
        if first is None:
            raise InputError("contains no images", where=source)
        yield first
        yield from images


def _option(name: str, value: str | None) -> Option:
    return Option(name, repr(value), f"--{name.replace('_', '-')} {value}")


def _images_of(source: Path, column: str | None, label_column: str | None) -> Iterator[ImageRef]:
    """Yield the images of one source."""
    if glob.has_magic(str(source)) and not os.path.lexists(source):
        yield from _matches(source, column, label_column)
        return
    with reading(source):
        folder = source.is_dir()
    suffix = source.suffix.lower()
    if folder:
        yield from _of_folder(source)
    elif suffix in SUFFIXES:
        yield ImageRef(source.as_posix(), str(source))
    elif suffix == TAR:
        for member in tar_members(source, SUFFIXES):
            yield ImageRef(f"{source.as_posix()}/{member.name}", str(source), member.offset, member.size, member.label)
    elif suffix == TEXT:
        yield from (_named(source, text) for text in _lines(source))
    elif suffix in TABLES:
        rows = (_csv_rows if suffix == CSV else _parquet_rows)(source, column, label_column)
        yield from (_named(source, text, label) for text, label in rows)
    elif sniff(source) == "image":
        yield ImageRef(source.as_posix(), str(source))
    else:
        hint = "a folder, a pattern, .txt, .csv, .parquet and .tar list images"
        raise InputError(f"unknown suffix '{source.suffix}'", where=source, hint=hint)


def _named(source: Path, text: str, label: str | None = None) -> ImageRef:
    """Return an image that a file names by its path."""
    return ImageRef(text, str(source.parent / text), label=label)


def _matches(pattern: Path, column: str | None, label_column: str | None) -> Iterator[ImageRef]:
    """Yield the images of what matches a pattern; it may match other files too, which are no lists unless it says so."""
    suffix = pattern.suffix.lower()
    found = False
    for text in sorted(glob.iglob(str(pattern), recursive=True)):  # noqa: PTH207 - of absolute patterns too
        match, found = Path(text), True
        if match.is_dir():
            if "**" not in pattern.parts:  # which matches the files in it too
                yield from _of_folder(match)
        elif match.suffix.lower() in {*SUFFIXES, TAR, suffix}:
            yield from _images_of(match, column, label_column)
    if not found:
        raise InputError("no file matches this pattern", where=pattern)


def _of_folder(folder: Path) -> Iterator[ImageRef]:
    """Yield the image files in a folder and its subfolders, sorted by the parts of their paths."""
    start = len(folder.parts)
    for path in _walk(folder, frozenset()):
        label = path.parts[start] if len(path.parts) > start + 1 else None
        yield ImageRef(path.as_posix(), str(path), label=label)


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield image files in a folder; `above` are the folders that contain it, to which a link may lead back."""
    with reading(folder):
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    if here in above:
        return
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, above | {here})
        elif os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122 - a path for each name would take as long as the walk
            yield folder / name


def _lines(source: Path) -> Iterator[str]:
    """Yield the lines of a text file that are not empty."""
    with reading(source), source.open(encoding="utf-8-sig") as file:
        try:
            yield from filter(None, (line.rstrip("\r\n") for line in file))
        except UnicodeDecodeError:
            raise InputError("not a text file in UTF-8", where=source) from None


def _csv_rows(source: Path, column: str | None, label_column: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield path and label of each row of a CSV table."""
    with reading(source), source.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.reader(file, strict=True)
            names = next(rows, [])
            at, label_at = _columns(names, column, label_column, source)
            for row in filter(None, rows):
                if len(row) != len(names):
                    cause = f"line {rows.line_num} has {len(row)} fields, the header {len(names)}"
                    raise InputError(cause, where=source)
                yield row[at], None if label_at is None else row[label_at]
        except csv.Error as error:
            raise InputError(f"not a CSV table: line {rows.line_num}: {error}", where=source) from None
        except UnicodeDecodeError:
            raise InputError("not a text file in UTF-8", where=source) from None


def _parquet_rows(source: Path, column: str | None, label_column: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield path and label of each row of a Parquet table."""
    pq = parquet()
    with reading(source):
        try:
            table = pq.ParquetFile(source)
        except (ValueError, OSError) as error:  # pyarrow's own errors are of these types
            raise InputError(f"not a Parquet table: {' '.join(str(error).split())[:200]}", where=source) from None
        with table:
            names = list(table.schema_arrow.names)
            wanted = [names[i] for i in _columns(names, column, label_column, source) if i is not None]
            for batch in table.iter_batches(batch_size=4096, columns=wanted):
                paths = batch.column(wanted[0]).to_pylist()
                labels = batch.column(wanted[1]).to_pylist() if len(wanted) > 1 else [None] * len(paths)
                for path, label in zip(paths, labels, strict=True):
                    if not isinstance(path, str):
                        cause = f"column '{wanted[0]}': expected paths, got {type(path).__name__}"
                        raise InputError(cause, where=source)
                    yield path, None if label is None else str(label)


def parquet() -> Any:
    """Return pyarrow's module for Parquet files. Raises MissingDependency."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependency("Parquet files need pyarrow", hint="pip install pyarrow") from None
    return pq


def _columns(names: list[str], column: str | None, label_column: str | None, source: Path) -> tuple[int, int | None]:
    """Return the positions of the columns of paths and labels."""
    if column is None:
        column = next((name for name in COLUMNS if name in names), names[0] if len(names) == 1 else None)
        if column is None:
            hint = f"{COLUMN} names it; there are {', '.join(names) or 'none'}"
            raise InputError("has no column 'path', and more than one column", where=source, hint=hint, options=[COLUMN])
    for name in (column, label_column):
        if name is not None and name not in names:
            near = did_you_mean(name, names) or f"; there are {', '.join(names)}"
            raise InputError(f"has no column '{name}'{near}", where=source)
    return names.index(column), None if label_column is None else names.index(label_column)
