"""Sets of files that belong together, in a folder with other files: all get their names in one step, or none does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vit_zoo.errors import CannotWrite
from vit_zoo.files import journal
from vit_zoo.files.atomic import Staged
from vit_zoo.files.disk import sync_folder, writing
from vit_zoo.files.journal import Step, inode_of
from vit_zoo.files.temporary import adopt, forget, put_in_place, remove, second_names, temporary

T = TypeVar("T")


class FileSet:
    """Files that are being written, as a context manager; `commit` gives all of a folder their names in one step.

    The order of `add` is that of the renames, and what `remove` names is removed before. Leaving the block without `commit`
    changes nothing.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._staged: list[tuple[Staged, Path]] = []
        self._removed: list[Path] = []

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context, such as a `Staged`, that lasts as long as the set."""
        return self._stack.enter_context(context)

    def add(self, staged: Staged, name: Path | None = None) -> None:
        """Add a complete file, which gets the name of its target, or another one in the same folder."""
        self._staged.append((staged, name or staged.target))

    def add_text(self, target: Path, text: str) -> None:
        """Write a small text file and add it."""
        staged = self.enter(Staged(target))
        staged.write(lambda file: file.write(text.encode()))
        self.add(staged)

    def remove(self, path: Path) -> None:
        """Remove a file, if it exists, before any new file gets its name."""
        self._removed.append(path)

    def commit(self) -> None:
        """Give the files their names, in one step for each folder. Raises CannotWrite; then the old files are there."""
        staged, self._staged = self._staged, []
        for folder in dict.fromkeys(name.parent for _, name in staged):
            here = [(one, name) for one, name in staged if name.parent == folder]
            with writing(here[0][1]):
                for one, name in here:
                    one.path = _beside(one.path, name)
                files = [(one.path, name) for one, name in here]
                put_all_in_place(folder, files, [path for path in self._removed if path.parent == folder])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()


def put_all_in_place(folder: Path, files: Sequence[tuple[Path, Path]], removed: Sequence[Path] = ()) -> None:
    """Rename complete temporary files of a folder to their names in it, in one step.

    Args:
        folder: The folder.
        files: Pairs of a temporary path and a name, in the order of the renames.
        removed: Files that are removed before, if they exist, in this order.

    Raises:
        OSError: A step failed. Those before it were undone; if that failed too, the next command in the folder finishes the set.
    """
    with journal.only_writer(folder):
        old = {path: inode for path in (*removed, *(name for _, name in files)) if (inode := inode_of(path)) is not None}
        if len(files) == 1 and not set(old) - {files[0][1]}:  # a rename is one step by itself
            put_in_place(*files[0])
        else:
            change = _Change.of(folder, files, [path for path in removed if path in old], old)
            change.carry_out()


@dataclass(frozen=True)
class _Change:
    """The steps that put a set of files in place, and those that restore the old files."""

    folder: Path
    steps: tuple[Step, ...]
    back: tuple[Step, ...] | None  # None if the old files have no second name, or folders are moved
    temporaries: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, files: Sequence[tuple[Path, Path]], removed: Sequence[Path], old: Mapping[Path, int]) -> _Change:
        """Plan a change; the old files, given with their inode numbers, get a second name each, under which they are kept."""
        steps = [Step(path.name, old[path]) for path in removed]
        back = []
        new = {name: path.lstat().st_ino for path, name in files}
        second = second_names(old)
        for path, name in files:
            steps.append(Step(name.name, new[name], path.name, None if name in removed else old.get(name)))
            if name not in old:  # renamed, if it is not yet, and then removed
                back += [Step(name.name, new[name], path.name), Step(name.name, new[name])]
        back += [Step(path.name, old[path], copy.name, new.get(path)) for path, copy in second.items()]
        possible = len(second) == len(old) and not any(path.is_dir() for path, _ in files)
        temporaries = (*second.values(), *(path for path, _ in files))
        return cls(folder, tuple(steps), tuple(back) if possible else None, temporaries)

    def carry_out(self) -> None:
        """Do the steps. If one fails, restore the old files."""
        path = self.folder / journal.NAME
        made = temporary(path)
        descriptor = None
        try:
            for each in (made, *self.temporaries):
                forget(each)  # they belong to the journal, even if a signal ends this process
            descriptor = journal.write(made, self.steps)
            journal.link(made, path)
            journal.perform(self.folder, self.steps)
            path.unlink(missing_ok=True)
            for each in self.temporaries:
                adopt(each)
        except BaseException:
            if descriptor is not None and inode_of(path) == os.fstat(descriptor).st_ino:  # else nothing is done, or everything
                self._undo(path)
            for each in (made, *self.temporaries):
                remove(each)
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)
        for each in self.temporaries:  # the second names of the old files
            remove(each)

    def _undo(self, path: Path) -> None:
        """Restore the old files by a journal of its own, for this process may die at any step of it too.

        If it is not possible, the journal at `path` stays, and so do its files, for the next command.
        """
        if self.back is None:
            raise CannotWrite("could not be written completely; the next command of vitzoo here finishes it", where=self.folder)
        made = temporary(path)
        descriptor = journal.write(made, self.back)
        try:
            made.replace(path)
            forget(made)
            sync_folder(self.folder)
            journal.perform(self.folder, self.back)
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _beside(path: Path, name: Path) -> Path:
    """Move a file from a staging folder to a temporary name in the folder of its name, and return that."""
    if path.parent == name.parent:
        return path
    moved = temporary(name)
    path.replace(moved)
    return moved
