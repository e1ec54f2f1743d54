"""Images in tar archives, in WebDataset's layout: the files of a sample are neighbours and have one name but for the suffix.

Only headers are read, and the content of labels; a reader of an image opens the archive at its offset.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from vit_zoo.errors import RefusedContent
from vit_zoo.files.sniff import reading

LABEL, LONGEST_LABEL = "cls", 1000  # bytes
COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5")  # what gzip, bzip2, xz and zstd files begin with


@dataclass(frozen=True)
class Member:
    """An image in an archive: its name, its bytes, and the label of its sample."""

    name: str
    offset: int
    size: int
    label: str | None = None


def tar_members(path: Path, suffixes: Collection[str]) -> Iterator[Member]:
    """Yield the images in an archive, by their suffix and without hidden files. Raises RefusedContent for a damaged one."""
    key, label = "", None
    images: list[Member] = []
    with reading(path), path.open("rb") as file:
        for info in _files(path, file):
            name = info.name.removeprefix("./")
            folder, slash, base = name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if f"{folder}{slash}{stem}" != key:
                yield from (replace(image, label=label) for image in images)
                key, images, label = f"{folder}{slash}{stem}", [], None
            if suffix == LABEL:
                file.seek(info.offset_data)
                label = file.read(min(info.size, LONGEST_LABEL)).decode("utf-8", "replace").strip()
            elif f".{suffix.rpartition('.')[2].lower()}" in suffixes:
                images.append(Member(name, info.offset_data, info.size))
    yield from (replace(image, label=label) for image in images)


def _files(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of an archive that is not compressed."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            at = -1
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if archive.offset <= at:  # a damaged header led back
                    raise RefusedContent("is a damaged tar archive", where=path)
                at = archive.offset
                if info.isreg() and not info.issparse():
                    yield info
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, EOFError) as error:
        if isinstance(error, RefusedContent):
            raise
        file.seek(0)
        hint = "compressed archives are not read" if file.read(2) in COMPRESSED else None
        raise RefusedContent(f"cannot be read as a tar archive ({error})", where=path, hint=hint) from None
