"""Files of features, written as a stream from the parts of a run: Parquet, NumPy and safetensors.

A Parquet file has a row for each image. The other two have the features alone, as one array, next to a table of the images.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vit_zoo.errors import InputError, MissingDependency
from vit_zoo.files.atomic import Staged, check_target, would_replace
from vit_zoo.files.file_set import FileSet
from vit_zoo.files.image_list import parquet
from vit_zoo.inference.embed.parts import Part, Parts
from vit_zoo.progress import step

KEY = "vitzoo"  # of the description of the run, as JSON, in the metadata of Parquet and safetensors files
TENSOR = "features"  # its name in a safetensors file
TYPES = {"float32": "F32", "float16": "F16"}  # the types of features, and safetensors' names for them
WIDTH = {"float32": 4, "float16": 2}  # bytes


@dataclass(frozen=True)
class Content:
    """What is written: the parts, the type of the features, and the description of the run."""

    parts: Parts
    dtype: str
    run: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts.rows, self.parts.width

    @property
    def nbytes(self) -> int:
        """The bytes of the features."""
        return self.parts.rows * self.parts.width * WIDTH[self.dtype]


Write = Callable[[BinaryIO, Content], None]


@dataclass(frozen=True)
class FeatureFile:
    """The files of a result.

    Attributes:
        path: The file of features.
        write: Function that writes it.
        table: The table of images next to it, if it has none itself.
        failures: The table of images that could not be read, which is written if there are any.
    """

    path: Path
    write: Write
    table: Path | None
    failures: Path

    @classmethod
    def of(cls, path: Path) -> FeatureFile:
        """Return the files for a path, by its suffix. Raises InputError for another suffix, MissingDependency without pyarrow."""
        write = WRITERS.get(path.suffix)
        if write is None:
            raise InputError(f"the name of a file of features must end in {', '.join(WRITERS)}", where=path)
        if write is _parquet:
            check_parquet()
        table = None if write is _parquet else path.with_suffix(".csv")
        return cls(path, write, table, path.with_suffix(".failures.csv"))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the one of features last."""
        return tuple(filter(None, (self.failures, self.table, self.path)))

    def check(self, *, force: bool) -> None:
        """Check before any work that the files can be written. Raises CannotWrite, also for one that exists without `force`."""
        for path in self.files:
            check_target(path)
            if path.exists() and not force:
                raise would_replace(path)

    def save(self, content: Content) -> None:
        """Write the files and give them their names in one step. Raises CannotWrite."""
        with FileSet() as files, step(f"writing {self.path.name}"):
            staged: dict[Path, Path] = {}

            def add(target: Path, fill: Callable[[BinaryIO], object], need: int = 0) -> None:
                file = files.enter(Staged(target, need=need))
                file.write(fill)
                files.add(file)
                staged[target] = file.path

            if content.parts.failed:
                add(self.failures, lambda file: write_failures(file, content.parts))
            else:
                files.remove(self.failures)
            if self.table is not None:
                add(self.table, lambda file: _write_csv(file, ("path", "height", "width"), _images(content.parts)))
            add(self.path, lambda file: self.write(file, content), need=content.nbytes)
            content.parts.partial.will_put(staged)
            files.commit()


def check_parquet() -> None:
    """Raise MissingDependency without pyarrow."""
    try:
        parquet()
    except MissingDependency as error:
        others = " and ".join(suffix for suffix in WRITERS if WRITERS[suffix] is not _parquet)
        raise MissingDependency(f"{error.message}; {others} do not", hint=error.hint) from None


def write_failures(file: BinaryIO, parts: Iterable[Part]) -> None:
    """Write the table of images that could not be read."""
    _write_csv(file, ("path", "reason"), _failures(parts))


def _failures(parts: Iterable[Part]) -> Iterator[tuple[str, ...]]:
    for part in parts:
        yield from part.failures


def _images(parts: Iterable[Part]) -> Iterator[tuple[Any, ...]]:
    for part in parts:
        yield from ((name, *size) for name, size in zip(part.names, part.sizes.tolist(), strict=True))


def _write_csv(file: BinaryIO, head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    text.detach()  # the file stays open


def _npy(file: BinaryIO, content: Content) -> None:
    import numpy as np

    header = {"descr": np.dtype(content.dtype).newbyteorder("<").str, "fortran_order": False, "shape": content.shape}
    np.lib.format.write_array_header_1_0(file, header)
    _write_features(file, content)


def _safetensors(file: BinaryIO, content: Content) -> None:
    entry = {"dtype": TYPES[content.dtype], "shape": list(content.shape), "data_offsets": [0, content.nbytes]}
    text = json.dumps({"__metadata__": {KEY: _described(content)}, TENSOR: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    _write_features(file, content)


def _write_features(file: BinaryIO, content: Content) -> None:
    file.writelines(part.features.tobytes() for part in content.parts)


def _parquet(file: BinaryIO, content: Content) -> None:
    import pyarrow as pa

    pq = parquet()
    kind = {"float32": pa.float32(), "float16": pa.float16()}[content.dtype]
    fields = [("path", pa.string()), ("height", pa.int32()), ("width", pa.int32()), (TENSOR, pa.list_(kind, content.parts.width))]
    schema = pa.schema(fields, metadata={KEY: _described(content)})
    # features are noise to a compressor, and each is different
    settings = {"compression": {"path": "zstd"}, "use_dictionary": False, "write_statistics": ["path", "height", "width"]}
    with pq.ParquetWriter(file, schema, **settings) as writer:
        for part in content.parts:
            if part.names:
                names = [_valid(name) for name in part.names]
                features = pa.FixedSizeListArray.from_arrays(pa.array(part.features.reshape(-1)), content.parts.width)
                columns = [pa.array(names, pa.string()), pa.array(part.sizes[:, 0]), pa.array(part.sizes[:, 1]), features]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=len(names))


def _valid(name: str) -> str:
    """Return a name as text in UTF-8, which names of files need not be."""
    return name.encode("utf-8", "backslashreplace").decode()


def _described(content: Content) -> str:
    return json.dumps({**content.run, "rows": content.parts.rows}, sort_keys=True)


WRITERS: dict[str, Write] = {".parquet": _parquet, ".npy": _npy, ".safetensors": _safetensors}
