"""Tests of errors that name an option: an argument in Python, a flag on the command line."""

from __future__ import annotations

import pytest

import vit_zoo
from support.models import SMALL
from vit_zoo.errors import CannotWrite, InputError


def test_a_folder_in_the_way(folder, cli):
    (folder / "there").mkdir()
    (folder / "there" / "file").write_text("mine")
    with pytest.raises(CannotWrite, match=r"use force=True to replace the model in it, or out=FOLDER to choose another folder"):
        vit_zoo.convert(vit_zoo.create("vit_ti16", **SMALL), "there")
    code, _, err = cli("create", "vit_ti16", "-o", "there")
    assert code == 8
    assert "use --force to replace the model in it, or -o to choose another folder" in err


def test_images_to_calibrate_with(folder, cli):
    with pytest.raises(InputError, match=r"calibrate=FOLDER; precision='int8-dynamic' needs none"):
        vit_zoo.export("vit_ti16", precision="int8-static")
    code, _, err = cli("export", "vit_ti16", "--onnx", "--int8", "static")
    assert code == 2
    assert "--calibrate FOLDER; --int8 dynamic needs none" in err
