"""Tests of sets of files: all or none after faults and crashes, and journals that nobody but this package wrote."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from vit_zoo.errors import CannotWrite
from vit_zoo.files import Staged, journal, write_text
from vit_zoo.files.file_set import FileSet
from vit_zoo.files.journal import NAME, settle
from vit_zoo.files.temporary import remove_all

OLD = {"a.onnx": "old graph", "a.onnx_data": "old weights", "a.onnx.parity.json": "old report", "notes.txt": "mine"}
NEW = {"a.onnx": "new graph", "a.onnx_data": "new weights", "a.onnx.parity.json": "new report", "notes.txt": "mine"}
TEMPORARY = ".a.onnx.vitzoo-999999999-00000000.tmp"
CALLS = ("replace", "link", "unlink", "fsync")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def replace_all(folder: Path) -> None:
    """Write an export with external weights."""
    target = folder / "a.onnx"
    with FileSet() as files:
        files.remove(folder / "a.onnx.parity.json")
        files.remove(target)
        for name in ("a.onnx_data", "a.onnx"):
            staged = files.enter(Staged(folder / name))
            staged.write(lambda file, name=name: file.write(NEW[name].encode()))
            files.add(staged)
        files.add_text(folder / "a.onnx.parity.json", NEW["a.onnx.parity.json"])
        files.commit()


class Counted:
    """Calls of functions of `os`, of which those with the given numbers fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, first: int, last: int) -> None:
        self.calls = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name), error, first, last))

    def counted(self, function, error, first, last):
        def call(*args, **options):
            self.calls += 1
            if first <= self.calls <= last:
                raise error
            return function(*args, **options)

        return call


def test_a_set_replaces_its_files_and_nothing_else(tmp_path):
    fill(tmp_path, OLD)
    replace_all(tmp_path)
    assert contents(tmp_path) == dict(sorted(NEW.items()))


def test_a_set_that_is_not_committed_changes_nothing(tmp_path):
    fill(tmp_path, OLD)
    with pytest.raises(RuntimeError), FileSet() as files:
        files.add_text(tmp_path / "a.onnx", "new graph")
        files.remove(tmp_path / "a.onnx_data")
        raise RuntimeError
    assert contents(tmp_path) == dict(sorted(OLD.items()))


def calls_of_a_set(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        folder.mkdir()
        fill(folder, OLD)
        counted = Counted(patch, None, 0, -1)
        replace_all(folder)
        return counted.calls


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
def test_a_fault_at_any_call_leaves_the_old_files(error, tmp_path):
    calls = calls_of_a_set(tmp_path / "count")
    assert calls >= 20
    for number in range(1, calls + 1):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        fill(folder, OLD)
        with pytest.MonkeyPatch.context() as patch:
            Counted(patch, error, number, number)
            try:
                replace_all(folder)
            except CannotWrite as failed:
                assert "disk" in str(failed)  # noqa: PT017
            except KeyboardInterrupt:
                pass
        remove_all()
        settle(folder)
        state = contents(folder)
        assert state in (OLD, NEW), (number, state)


def test_a_fault_of_the_disk_that_stays_is_repaired_by_the_next_command(tmp_path):
    calls = calls_of_a_set(tmp_path / "count")
    for number in range(1, calls + 1):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        fill(folder, OLD)
        with pytest.MonkeyPatch.context() as patch:
            Counted(patch, OSError(errno.EIO, "Input/output error"), number, 10**6)
            with contextlib.suppress(CannotWrite):  # only what is removed last may fail silently
                replace_all(folder)
        settle(folder)
        state = {name: text for name, text in contents(folder).items() if not name.endswith(".tmp")}
        assert state in (OLD, NEW), (number, state)


def test_without_hard_links_the_next_command_finishes_the_set(tmp_path, monkeypatch):
    def no_links(*args, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    fill(tmp_path, OLD)
    monkeypatch.setattr(os, "link", no_links)
    replace = os.replace

    def failing(source, target):
        if str(target).endswith("a.onnx_data"):
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(CannotWrite, match="the next command of vitzoo here finishes it"):
            replace_all(tmp_path)
    assert not (tmp_path / "a.onnx").exists()  # with the old weights it would be the old graph, but they are about to go
    assert (tmp_path / NAME).exists()
    settle(tmp_path)
    assert contents(tmp_path) == dict(sorted(NEW.items()))


def interrupted(folder: Path) -> None:
    """Leave a folder as a process does that dies after the first rename of a set."""
    fill(folder, OLD)
    child = os.fork()
    if not child:
        replace = os.replace

        def dying(source, target):
            replace(source, target)
            if str(target).endswith("a.onnx_data"):
                os._exit(9)

        os.replace = dying
        try:
            replace_all(folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (folder / NAME).exists()
    assert not (folder / "a.onnx").exists()


def test_whoever_comes_next_finishes_an_interrupted_set(tmp_path):
    readers = settle, lambda folder: settle(folder, "a.onnx"), lambda folder: write_text(folder / "notes.txt", "mine")
    for number, comes in enumerate(readers):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        interrupted(folder)
        comes(folder)
        assert {name: text for name, text in contents(folder).items() if name in NEW} == NEW
        assert not (folder / NAME).exists()
        write_text(folder / "notes.txt", "mine")
        assert contents(folder) == dict(sorted(NEW.items()))


def test_a_set_that_cannot_be_finished_is_an_error_for_its_files_only(tmp_path, monkeypatch):
    interrupted(tmp_path)

    def read_only(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    monkeypatch.setattr(os, "unlink", read_only)
    with pytest.raises(
        CannotWrite, match=r"the writing of .*a.onnx.* was interrupted, and cannot be finished: the disk is read-only"
    ):
        settle(tmp_path, "a.onnx")
    assert not settle(tmp_path, "notes.txt")


def test_a_file_that_the_user_put_there_after_the_crash_stays(tmp_path):
    interrupted(tmp_path)
    (tmp_path / "a.onnx").write_text("from a backup")
    settle(tmp_path)
    assert (tmp_path / "a.onnx").read_text() == "from a backup"


def test_a_set_that_is_being_written_is_waited_for(tmp_path):
    interrupted(tmp_path)
    with (tmp_path / NAME).open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        reader = threading.Thread(target=settle, args=(tmp_path, "a.onnx"))
        reader.start()
        time.sleep(0.1)
        assert reader.is_alive()
        assert not (tmp_path / "a.onnx").exists()
    reader.join(10)
    assert (tmp_path / "a.onnx").read_text() == "new graph"


def test_a_folder_without_journal_costs_one_look(tmp_path, monkeypatch):
    def scanned(*args):
        raise AssertionError

    looks = []
    lstat = os.lstat
    monkeypatch.setattr(os, "scandir", scanned)
    monkeypatch.setattr(os, "listdir", scanned)
    monkeypatch.setattr(os, "open", scanned)
    monkeypatch.setattr(os, "lstat", lambda path: looks.append(path) or lstat(path))
    assert settle(tmp_path, "a.onnx")
    assert len(looks) == 1


# --- hostile journals ---


def step(name="a.onnx", temporary=TEMPORARY, inode=None, over=None):
    return {"name": name, "inode": inode, "temporary": temporary, "over": over}


def removal(name):
    return step(name, None)


HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "binary": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "a long number": b'{"vitzoo_journal": ' + b"9" * 5000 + b', "steps": []}',
    "a list": [],
    "another version": {"vitzoo_journal": 2, "steps": []},
    "more keys": {"vitzoo_journal": 1, "steps": [], "also": 1},
    "steps are text": {"vitzoo_journal": 1, "steps": "no"},
    "a step is text": {"vitzoo_journal": 1, "steps": ["no"]},
    "a step lacks a key": {"vitzoo_journal": 1, "steps": [{"name": "a.onnx"}]},
    "too long": b'{"vitzoo_journal": 1, "steps": []' + b" " * 2**20 + b"}",
    "name is a number": [step(name=3)],
    "inode is text": [step(inode="1")],
    "inode is true": [step(inode=True)],
    "over is a list": [step(over=[1])],
    "a name above": [step("../victim", ".../victim.vitzoo-1-00000000.tmp")],
    "an absolute name": [step("/etc/victim")],
    "a temporary file above": [step("a.onnx", "../.a.onnx.vitzoo-1-00000000.tmp")],
    "dots": [step("..", "....vitzoo-1-00000000.tmp")],
    "a null byte": [step("a\0", ".a\0.vitzoo-1-00000000.tmp")],
    "another name than its own": [step("notes.txt", TEMPORARY)],
    "a source that is no temporary file": [step("a.onnx", "notes.txt")],
    "the journal itself": [step(NAME, f".{NAME}.vitzoo-1-00000000.tmp")],
    "removes another file": [step(), removal("notes.txt")],
    "removes only": [removal("notes.txt")],
    "another inode": [step(inode=1)],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_journal_of_somebody_else_changes_nothing(case, tmp_path, caplog):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "victim").write_text("victim")
    fill(folder, {**OLD, TEMPORARY: "planted"})
    content = HOSTILE[case]
    if isinstance(content, list) and content:
        for one in content:
            if one["inode"] is None:  # as if the attacker had guessed it
                file = folder / str(one["temporary"] or one["name"])
                one["inode"] = file.stat().st_ino if "\0" not in str(file) and file.exists() else 1
        content = {"vitzoo_journal": 1, "steps": content}
    (folder / NAME).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    journal._ignored.clear()
    assert not settle(folder, "a.onnx")
    assert "not a valid journal, and ignored" in caplog.text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (tmp_path / "victim").read_text() == "victim"
    caplog.clear()
    settle(folder, "a.onnx")
    assert not caplog.text, "said once"
    with pytest.raises(CannotWrite, match="in the way"):
        replace_all(folder)
    assert {name: (folder / name).read_text() for name in OLD} == OLD


def test_journals_that_are_not_files_change_nothing(tmp_path, caplog):
    (tmp_path / "elsewhere").write_text(json.dumps({"vitzoo_journal": 1, "steps": []}))
    for make in (
        lambda path: path.symlink_to("elsewhere"),
        lambda path: path.symlink_to("nothing"),
        lambda path: path.symlink_to(NAME),
        os.mkfifo,
        Path.mkdir,
    ):
        path = tmp_path / NAME
        make(path)
        journal._ignored.clear()
        caplog.clear()
        assert not settle(tmp_path)
        assert "ignored" in caplog.text
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_journal_of_another_user_is_not_followed(tmp_path, monkeypatch, caplog):
    interrupted(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    journal._ignored.clear()
    assert not settle(tmp_path, "a.onnx")
    assert "belongs to another user" in caplog.text
    assert not (tmp_path / "a.onnx").exists()
    write_text(tmp_path / "notes.txt", "mine")  # does not take the temporary files away
    monkeypatch.undo()
    settle(tmp_path)
    assert (tmp_path / "a.onnx").read_text() == "new graph"


def test_a_temporary_link_is_not_followed(tmp_path, caplog):
    interrupted(tmp_path)
    steps = json.loads((tmp_path / NAME).read_text())["steps"]
    temporary = tmp_path / next(one["temporary"] for one in steps if one["temporary"] and one["name"] == "a.onnx")
    temporary.unlink()
    temporary.symlink_to("/etc/passwd")
    journal._ignored.clear()
    assert not settle(tmp_path)
    assert "is not the file that it was written for" in caplog.text


def test_a_copied_folder_is_not_changed_by_its_journal(tmp_path):
    (tmp_path / "original").mkdir()
    interrupted(tmp_path / "original")
    subprocess.run(["cp", "-r", tmp_path / "original", tmp_path / "copy"], check=True)
    before = contents(tmp_path / "copy")
    journal._ignored.clear()
    assert not settle(tmp_path / "copy")
    assert contents(tmp_path / "copy") == before


def test_two_writers_of_one_folder(tmp_path):
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from vit_zoo.files.file_set import FileSet

        name, count = sys.argv[1], int(sys.argv[2])
        for i in range(count):
            with FileSet() as files:
                for suffix in ("onnx_data", "onnx"):
                    files.remove(Path(f"{name}.{suffix}"))
                    files.add_text(Path(f"{name}.{suffix}"), f"{sys.argv[3]} {i}")
                files.commit()
    """)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, name, "20", text], cwd=tmp_path)
        for name, text in (("a", "x"), ("b", "y"), ("b", "z"))
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert contents(tmp_path)["a.onnx"] == contents(tmp_path)["a.onnx_data"] == "x 19"
    assert contents(tmp_path)["b.onnx"] == contents(tmp_path)["b.onnx_data"] in ("y 19", "z 19")
    assert sorted(contents(tmp_path)) == ["a.onnx", "a.onnx_data", "b.onnx", "b.onnx_data"]
