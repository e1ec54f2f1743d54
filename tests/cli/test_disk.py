"""Tests of faults of the disk: the old files stay, the exit code is 8, and the message names the disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support.disks import small_disk_at
from vit_zoo.files import Staged

TINY = ["--set", "dim=48", "--set", "heads=3", "--set", "dim_head=16", "--set", "depth=1", "--set", "image_size=32"]
CREATE = ["create", "vit_ti16", *TINY, "--force", "-o"]
EXPORT = ["export", "model", "--onnx", "--verify", "off", "--force", "-o", "a.onnx"]
WORDS = {
    errno.ENOSPC: "no space left: the disk is full",
    errno.EDQUOT: "no space left: the disk quota is used up",
    errno.EIO: "the disk reported an input/output error",
    errno.EROFS: "the disk is read-only",
}


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(folder, cli):
    """A model, and an older one in the place of what the commands write."""
    for name in ("model", "old"):
        assert cli(*CREATE, name, "--seed", "3").code == 0
    assert cli(*EXPORT, "--external").code == 0
    (folder / "old" / "notes.txt").write_text("mine")
    return folder


COMMANDS = {
    "create": [*CREATE, "old"],
    "convert to a folder": ["convert", "model", "-o", "old", "--to", "timm", "--force"],
    "convert to a file": ["convert", "model", "-o", "old/model.safetensors", "--to", "timm", "--force"],
    "export": EXPORT,
    "export external": [*EXPORT, "--external"],
}


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("command", COMMANDS)
def test_faults_of_sync_and_rename(command, function, place, cli, monkeypatch):
    before, original = state(place), getattr(os, function)
    for number, words in WORDS.items():
        for skip in (0, 1):
            calls = iter(range(1000))

            def failing(*args, number=number, skip=skip, calls=calls):
                if next(calls) < skip:
                    return original(*args)
                raise OSError(number, os.strerror(number))

            with monkeypatch.context() as patch:
                patch.setattr(os, function, failing)
                code, _, err = cli(*COMMANDS[command])
            if code == 0:  # it needs fewer of these calls
                assert skip
                assert function == "replace"
                before = state(place)
                continue
            assert code == 8, err
            assert words in err.splitlines()[-1]
            assert ".tmp" not in err
            assert state(place) == before, (number, skip)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 kB."""
    with small_disk_at(tmp_path / "disk", "600k") as disk:
        yield disk


def test_a_disk_that_is_too_small(small_disk, folder, cli, monkeypatch):
    assert cli(*CREATE, "model").code == 0
    for name in ("old", "old2"):
        assert cli(*CREATE, small_disk / name, "--set", "num_classes=9", "--set", "mlp_dim=16").code == 0
    before = state(small_disk)
    commands = [[*CREATE, small_disk / "old"], ["export", "model", "--onnx", "-o", small_disk / "a.onnx"]]
    for command in commands:
        code, _, err = cli(*command)
        assert (code, state(small_disk)) == (8, before)
        assert "not enough disk space: needs " in err.splitlines()[-1]
        with monkeypatch.context() as patch:  # the space is taken by somebody else meanwhile
            patch.setattr("vit_zoo.files.atomic.check_space", lambda folder, need: None)
            code, _, err = cli(*command)
        assert (code, state(small_disk)) == (8, before)
        assert "no space left: the disk is full" in err.splitlines()[-1]


def test_a_full_folder_for_temporary_files(small_disk, place, cli, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    (small_disk / "rest").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert cli(*COMMANDS["create"]).code == 0
    assert cli(*EXPORT).code == 0


def test_missing_and_closed_folders(place, cli):
    before = state(place)
    for command in ([*CREATE, "no/such"], ["convert", "model", "-o", "no/such.pth", "--to", "timm"], [*EXPORT[:-1], "no/a.onnx"]):
        code, _, err = cli(*command)
        assert code == 2
        assert "no: no such folder" in err
    assert state(place) == before


def test_a_fault_while_a_file_is_closed(tmp_path):
    from vit_zoo.errors import CannotWrite

    class Closing:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    (tmp_path / "a").write_text("old")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CannotWrite, match="quota"), Staged(tmp_path / "a") as staged:
        original = Path.open
        patch.setattr(Path, "open", lambda *args: Closing(original(*args)))
        staged.write(lambda file: file.write(b"new"))
    assert state(tmp_path) == {"a": b"old"}
