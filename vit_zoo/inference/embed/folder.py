"""Folders of Parquet files of features: as many files as the features need, written by the workers of an engine.

pandas, pyarrow, Spark and DuckDB read such a folder as one table. It gets its name when all of its files are there.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from vit_zoo.errors import CannotWrite
from vit_zoo.files.atomic import would_replace
from vit_zoo.files.disk import writing
from vit_zoo.files.folder import check_folder
from vit_zoo.files.partial import Partial
from vit_zoo.files.temporary import put_in_place, remove, temporary
from vit_zoo.inference.embed.files import WRITERS, Content, check_parquet, write_failures
from vit_zoo.inference.embed.part_writer import visible
from vit_zoo.inference.embed.parts import Parts
from vit_zoo.inference.engine import Engine
from vit_zoo.inference.worker import chunk_size
from vit_zoo.progress import step

IMAGES = 65536  # in a file: 200 MB of 768 features in float32
FILES = "files"  # the folder in the partial result
FAILURES = "_failures.csv"  # readers of such folders skip names that begin with _


@dataclass(frozen=True)
class FeatureFolder:
    """A folder of features.

    Attributes:
        path: The folder.
        engine: The engine that writes its files.
    """

    path: Path
    engine: Engine
    table: None = None

    @classmethod
    def of(cls, path: Path, engine: Engine) -> FeatureFolder:
        """Return a folder. Raises MissingDependency without pyarrow."""
        check_parquet()
        return cls(path, engine)

    @property
    def failures(self) -> Path:
        """The table of images that could not be read, which is written if there are any."""
        return self.path / FAILURES

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        return (self.path,)

    def check(self, *, force: bool) -> None:
        """Check before any work that the folder can be written. Raises CannotWrite, also for one that exists without `force`."""
        check_folder(self.path, force=True)
        if self.path.is_dir():
            other = next((path for path in self.path.iterdir() if not _is_ours(path)), None)
            if other is not None:
                raise CannotWrite(f"contains {other.name}, which is no file of features", where=self.path, hint="choose another")
            if not force and any(self.path.iterdir()):
                raise would_replace(self.path)

    def save(self, content: Content) -> None:
        """Write the files, those that an interrupted run wrote excepted, and give the folder its name. Raises CannotWrite."""
        partial = Partial(content.parts.partial.folder.absolute())
        content = replace(content, parts=replace(content.parts, partial=partial))
        made = partial.folder / FILES
        with writing(self.path):
            made.mkdir(exist_ok=True)
        each = IMAGES // chunk_size(partial.run()["images"]["count"])
        ranges = [content.parts.numbers[i : i + each] for i in range(0, len(content.parts.numbers), each)]
        with (
            step(f"writing {self.path.name}", len(ranges), "files") as progress,
            closing(self.engine(list(enumerate(ranges)), FileWriters(content, made))) as written,
        ):
            for _ in written:
                progress.advance()
        if content.parts.failed:
            partial.write_file(made / FAILURES, lambda file: write_failures(file, content.parts))
        with writing(self.path):
            partial.will_put({self.path: made})
            old = temporary(self.path)
            if self.path.exists():
                self.path.replace(old)
            put_in_place(made, self.path)
            remove(old)


@dataclass(frozen=True)
class FileWriters:
    """Function that opens a writer of files; it can be sent to another process or machine."""

    content: Content
    folder: Path

    def __call__(self) -> FileWriter:
        visible(self.folder.parent)
        return FileWriter(self)


class FileWriter:
    """A function from the number of a file, and the numbers of its parts, to the path of the written file."""

    def __init__(self, options: FileWriters) -> None:
        self.content, self.folder = options.content, options.folder

    def __call__(self, file: tuple[int, range]) -> Path:
        number, numbers = file
        path = self.folder / f"part-{number:06}.parquet"
        if not path.exists():  # every file in this folder is complete
            whole = self.content
            parts = replace(Parts.of(whole.parts.partial, numbers), width=whole.parts.width)
            content = replace(whole, parts=parts)
            whole.parts.partial.write_file(path, lambda stream: WRITERS[".parquet"](stream, content))
        return path

    def close(self) -> None:
        """Do nothing: a file takes seconds."""


def _is_ours(path: Path) -> bool:
    return path.name == FAILURES or (path.name.startswith("part-") and path.suffix == ".parquet")
