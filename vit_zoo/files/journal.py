"""Journal of a set of files in one folder, such as a graph, its weights and its report: after a crash, all are old or all new.

Several renames cannot be one step. So all new files are first complete and synced under temporary names; then `.vitzoo-journal`
lists the steps, is synced itself, and gets its name in one step; then the steps are done, and the journal is removed. As long as
it is there, the set is not complete. Whoever reads or writes a file in the folder calls `settle` first, which finishes the steps:
one look at one name, where there is no journal. The writer holds a lock on the journal, which the kernel releases when the
process dies, so a set that is being written is waited for.

The steps are ordered so that other programs, which know no journal, find a file missing rather than with the values of another:
a graph is removed before its weights are replaced, and a report, which states the hash of its file, comes last.

A journal is data from a disk, and a folder may come from anywhere. It is followed only if it belongs to this user, and each step
can only rename a temporary file of ours to the name in its own name, or remove a file of the set, and only the very file that
was there when the journal was written: the inode numbers are in it, which a copied or unpacked folder cannot have. Anything else
in it makes it invalid, and an invalid journal changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vit_zoo.errors import CannotWrite, cause_of, notice
from vit_zoo.files.disk import sync_folder
from vit_zoo.files.names import TEMPORARY

NAME = ".vitzoo-journal"
REPORT, REJECTED = ".parity.json", ".rejected"
LARGEST = 1_048_576  # bytes of a journal
PATIENCE = 30.0  # seconds to wait for another process
# to open journals with, as far as the system has them: no link, no pipe without an end, not in child processes, no text
OPEN = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


FIELDS = {"name", "inode", "temporary", "over"}


class InvalidJournal(ValueError):
    """A journal that this package did not write in this folder."""


@dataclass(frozen=True)
class Step:
    """Rename the file `temporary` to `name`; without it, remove `name`.

    `inode` is that of the file to rename or remove, and `over` that of the file which a rename replaces, if there is one.
    """

    name: str
    inode: int
    temporary: str | None = None
    over: int | None = None


def inode_of(path: Path) -> int | None:
    """Return the inode number of a file, of a link itself; None if there is no such file."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def settle(folder: Path, name: str | None = None) -> bool:
    """Finish a set of files whose writer died, or wait for one that is alive. Return whether no journal is left.

    Raises CannotWrite if this is not possible, unless `name` is given and does not belong to the set. An invalid journal is
    ignored with a notice.
    """
    path = folder / NAME
    while os.path.lexists(path):
        steps: tuple[Step, ...] = ()
        try:
            with _locked(path) as descriptor:
                if descriptor is None:  # its writer has just finished
                    continue
                steps = _read(descriptor)
                _check_files(folder, steps, os.fstat(descriptor).st_uid)
                perform(folder, steps)
                path.unlink(missing_ok=True)
        except InvalidJournal as error:
            _ignore(path, str(error))
            return False
        except CannotWrite:
            raise
        except OSError as error:
            if steps and name is not None and name not in {step.name for step in steps}:
                return False
            what = ", ".join(dict.fromkeys(step.name for step in steps))
            cause = f"the writing of {what or 'files'} was interrupted, and cannot be finished: {cause_of(error)}"
            raise CannotWrite(cause, where=folder) from None
    return True


def write(made: Path, steps: Sequence[Step]) -> int:
    """Write a journal under a temporary name. Return its descriptor, which holds the lock."""
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN, 0o666)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            lock(descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps({"vitzoo_journal": 1, "steps": [asdict(step) for step in steps]}).encode())
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def link(made: Path, path: Path) -> None:
    """Give a journal its name, after any other that is there, and sync the folder."""
    while True:
        try:
            path.hardlink_to(made)
            made.unlink()
            break
        except FileExistsError:
            if not settle(path.parent):
                raise CannotWrite("is in the way of a new journal", where=path, hint="remove it") from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            made.replace(path)
            break
    sync_folder(path.parent)


def perform(folder: Path, steps: Sequence[Step]) -> None:
    """Do the steps that are not done yet, and sync the folder."""
    for step in steps:
        path = folder / step.name
        if step.temporary is None:
            if inode_of(path) == step.inode:
                path.unlink(missing_ok=True)
            continue
        source = folder / step.temporary
        if inode_of(source) == step.inode and inode_of(path) in (None, step.over, step.inode):  # else it was replaced meanwhile
            source.replace(path)
        if inode_of(source) == step.inode and not source.is_dir():  # two names of one file are left by a rename to the other
            source.unlink(missing_ok=True)
    sync_folder(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Open a journal that no other process uses; None if it is gone. Raises InvalidJournal for anything but a file of ours."""
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | OPEN)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            descriptor = os.open(path, os.O_RDONLY | OPEN)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:  # a link, a folder, a socket, a file of another user
        raise InvalidJournal(error.strerror) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidJournal("not a regular file")
        _wait_for_lock(descriptor, path.parent)
        here = inode_of(path) == status.st_ino
        if here and sys.platform != "win32" and status.st_uid != os.geteuid():
            raise InvalidJournal("it belongs to another user")
        yield descriptor if here else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other sets of files out of a folder within the block: they wait. Raises CannotWrite if it takes too long."""
    if sys.platform == "win32":  # where a folder cannot be opened
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | OPEN)
    try:
        _wait_for_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> None:
    """Lock a file for this process, until it is closed. Windows has no such locks: writers do not wait for each other there."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _wait_for_lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            lock(descriptor)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CannotWrite("another process is writing files here", where=folder, hint="try again") from None
            time.sleep(0.01)
        except OSError:  # some network file systems have no locks
            return


def _read(descriptor: int) -> tuple[Step, ...]:
    """Return the steps in a journal. Raises InvalidJournal unless each is one that this package writes."""
    content = os.read(descriptor, LARGEST + 1)
    try:
        document = json.loads(content) if len(content) <= LARGEST else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or set(document) != {"vitzoo_journal", "steps"} or document["vitzoo_journal"] != 1:
        raise InvalidJournal("it was not written by this version of vitzoo")
    given = document["steps"]
    if not isinstance(given, list) or not all(isinstance(step, dict) and set(step) == FIELDS for step in given):
        raise InvalidJournal("its steps are not of the known kind")
    steps = tuple(Step(**step) for step in given)
    for step in steps:
        _check_names(step)
    final = {step.name for step in steps if step.temporary is not None}
    removable = final | {name + REPORT for name in final}
    for step in steps:
        if step.temporary is None and step.name not in removable:
            raise InvalidJournal(f"it would remove {step.name!r}, which is not of its set")
    return steps


def _check_names(step: Step) -> None:
    """Raise InvalidJournal unless a step has names of files in the folder itself, which belong together."""
    if any(type(number) is not int or number < 1 for number in (step.inode, 1 if step.over is None else step.over)):
        raise InvalidJournal("an inode number is not valid")
    for name in (step.name, "-" if step.temporary is None else step.temporary):
        if not isinstance(name, str) or name in ("", ".", "..", NAME) or "/" in name or "\0" in name:
            raise InvalidJournal("a name is not the name of a file in the folder")
    if step.temporary is not None:
        match = TEMPORARY.fullmatch(step.temporary)
        if match is None or step.name not in (match[1], match[1] + REJECTED):
            raise InvalidJournal(f"it would rename {step.temporary!r} to {step.name!r}")


def _check_files(folder: Path, steps: Sequence[Step], user: int) -> None:
    """Raise InvalidJournal unless the temporary files are those that the journal was written for, as far as they are left."""
    for step in steps:
        if step.temporary is None:
            continue
        try:
            status = (folder / step.temporary).lstat()
        except FileNotFoundError:  # this step is done
            continue
        ours = status.st_ino == step.inode and status.st_uid == user
        if not ours or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InvalidJournal(f"{step.temporary!r} is not the file that it was written for")


_ignored: set[Path] = set()


def _ignore(path: Path, reason: str) -> None:
    """Tell the user once that a journal is ignored."""
    if path not in _ignored:
        _ignored.add(path)
        notice(f"{path}: not a valid journal, and ignored: {reason}")
