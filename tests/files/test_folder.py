"""Tests of folders that are written in one step, where names can be exchanged and where they cannot."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from vit_zoo.errors import CannotWrite
from vit_zoo.files import folder as folders
from vit_zoo.files import write_text
from vit_zoo.files.folder import private_folder, written_folder

linux = pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux only")


def write(folder: Path, text: str = "new") -> None:
    with written_folder(folder) as made:
        write_text(made / "config.json", text)
        write_text(made / "model.safetensors", text)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model's folder with files of the user, one of them in a subfolder, a link, and a mode of its own."""
    folder = tmp_path / "model"
    write(folder, "old")
    (folder / "notes.txt").write_text("mine")
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / "log").write_text("log")
    (folder / "link").symlink_to("nowhere")
    (folder / "runs").chmod(0o700)
    folder.chmod(0o750)
    return folder


AFTER = {"config.json": "new", "model.safetensors": "new", "notes.txt": "mine", "runs/one/log": "log"}


def check(folder: Path) -> None:
    assert contents(folder) == AFTER
    assert (folder / "link").readlink() == Path("nowhere")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "runs").stat().st_mode) == 0o700


def test_a_new_folder(tmp_path):
    write(tmp_path / "new")
    assert contents(tmp_path) == {"new/config.json": "new", "new/model.safetensors": "new"}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@linux
def test_an_old_folder_is_exchanged_with_everything_else_in_it(old, tmp_path):
    before, notes = old.stat().st_ino, (old / "notes.txt").stat().st_ino
    write(old)
    check(old)
    assert old.stat().st_ino != before
    assert (old / "notes.txt").stat().st_ino == notes, "the same file, so that whoever has it open still writes to it"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EXDEV, errno.EBUSY, errno.ENOSYS, errno.EPERM])
def test_where_names_cannot_be_exchanged_the_files_are(number, old, tmp_path, monkeypatch):
    def refused(one: Path, other: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders, "_exchange", refused)
    before = old.stat().st_ino
    write(old)
    check(old)
    assert old.stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("here", [".", "runs", "runs/one"])
def test_the_current_folder_is_not_taken_away(here, old, monkeypatch):
    monkeypatch.chdir(old / here)
    before = old.stat().st_ino
    write(old if here != "." else Path())
    check(old)
    assert old.stat().st_ino == before


def test_a_folder_with_very_many_other_files_is_not_exchanged(old, monkeypatch):
    monkeypatch.setattr(folders, "MOST_LINKS", 3)
    before = old.stat().st_ino
    write(old)
    check(old)
    assert old.stat().st_ino == before


@linux
def test_a_file_that_appears_while_the_names_are_exchanged_is_kept(old, monkeypatch):
    exchange = folders._exchange

    def late(one: Path, other: Path) -> None:
        (old / "late.txt").write_text("late")
        exchange(one, other)

    monkeypatch.setattr(folders, "_exchange", late)
    write(old)
    assert (old / "late.txt").read_text() == "late"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_folder_that_is_not_complete_changes_nothing(error, old, tmp_path):
    before = contents(old)
    for folder in (old, tmp_path / "new"):
        with pytest.raises(error), written_folder(folder) as made:
            write_text(made / "config.json", "new")
            raise error
    assert contents(old) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_errors_name_the_folder_and_not_its_temporary_name(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(CannotWrite) as raised, written_folder(folder) as made:
            write_text(made / "config.json", "new")
            write_text(made / ("y" * 250), "new")
        assert ".tmp" not in str(raised.value)


def test_a_folder_in_the_place_of_a_file_is_an_error(old, monkeypatch):
    (old / "config.json").unlink()
    (old / "config.json").mkdir()
    (old / "config.json" / "x").write_text("mine")
    monkeypatch.chdir(old)
    with pytest.raises(CannotWrite, match="is a folder"):
        write(old)
    assert (old / "config.json" / "x").read_text() == "mine"
    assert (old / "model.safetensors").read_text() == "old"
    assert not [path for path in old.iterdir() if path.name.endswith(".tmp")]


def test_a_private_folder_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_folder("stage") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "x").write_text("x")
    assert not list(tmp_path.iterdir())
