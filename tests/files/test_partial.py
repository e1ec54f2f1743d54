"""Tests of folders of partial results: which parts are used again, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vit_zoo.errors import CannotWrite, InputError
from vit_zoo.files.partial import RUN, Partial, partial_result

TARGET = Path("out.npy")


def prepare(**run):
    def fill(folder):
        (folder / "list").write_text(str(run))
        return run

    return fill


def made(**run):
    """Make a partial result with two parts."""
    with partial_result(TARGET, prepare(**run)) as partial:
        partial.write_part(3, b"three")
        partial.write_part(12, b"")
    return partial


def state(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_run_finds_its_parts(folder):
    made(model="a", sizes=(1, 2))
    with partial_result(TARGET, prepare(sizes=(1, 2), model="a")) as partial:
        assert partial.done() == {3, 12}
        assert partial.read_part(3) == b"three"
        assert partial.run() == {"model": "a", "sizes": [1, 2]}
        partial.drop_part(3)
        assert partial.done() == {12}
        assert (partial.folder / "list").is_file()
        partial.discard()
    assert state(folder) == {}


@pytest.mark.parametrize("run", [{"model": "b", "size": 1}, {"model": "a"}, {"model": "a", "size": 1, "more": None}])
def test_another_run_is_refused_or_replaced(folder, run):
    made(model="a", size=1)
    before = state(folder)
    text = r"out.npy.partial: is a partial result of another run, with other (model|size|more) \(finish"
    with pytest.raises(InputError, match=text), partial_result(TARGET, prepare(**run)):
        pass
    assert state(folder) == before
    with partial_result(TARGET, prepare(**run), force=True) as partial:
        assert partial.done() == set()
        assert partial.run() == run


def test_a_failure_in_the_preparation_leaves_nothing(folder):
    def fail(place):
        (place / "list").write_text("some")
        raise InputError("no images")

    with pytest.raises(InputError), partial_result(TARGET, fail):
        pass
    assert state(folder) == {}
    made(model="a")
    before = state(folder)
    with pytest.raises(InputError), partial_result(TARGET, fail, force=True):
        pass
    assert state(folder) == before


def test_files_that_have_their_names(folder):
    """After a crash, it is known whether the result is that of the parts, or an older file."""
    TARGET.write_bytes(b"older")
    new = Path("new.tmp")
    new.write_bytes(b"result")
    with partial_result(TARGET, prepare(model="a")) as partial:
        assert not partial.is_put()
        partial.will_put({TARGET: new})
        assert not partial.is_put()
        new.replace(TARGET)
        assert partial.is_put()
    with partial_result(TARGET, prepare(model="b")) as partial:  # that of another run which ended but for this folder
        assert partial.run() == {"model": "b"}
        assert not partial.is_put()


@pytest.mark.parametrize("content", [None, "", "[]", "no JSON"])
def test_other_folders_are_left_alone(folder, content):
    place = folder / "out.npy.partial"
    place.mkdir()
    (place / "mine").write_text("mine")
    if content is not None:
        (place / RUN).write_text(content)
    before = state(folder)
    for force in (False, True):
        text = r"is in the place of partial results, but is none of vitzoo's \(move it away\)"
        with pytest.raises(CannotWrite, match=text), partial_result(TARGET, prepare(model="a"), force=force):
            pass
    assert state(folder) == before


def test_only_one_process_is_at_work(folder):
    code = (
        "from pathlib import Path; from vit_zoo.files.partial import partial_result\n"
        "with partial_result(Path('out.npy'), lambda folder: {'model': 'a'}): print('at work')"
    )
    with partial_result(TARGET, prepare(model="a")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "CannotWrite: out.npy.partial: another process is at work on it" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "at work\n"
    assert Partial.of(TARGET).exists()
