"""Tests that no name of another library gives random weights where its published weights cannot be fetched."""

from __future__ import annotations

import pytest

import vit_zoo
from vit_zoo.errors import HubError, InputError
from vit_zoo.loading.load import RANDOM, find_weights
from vit_zoo.registry.aliases import read_aliases
from vit_zoo.registry.catalog import zoo

ALIASES, AMBIGUOUS = read_aliases(zoo().folders)
FIRST = {alias.library: name for name, alias in reversed(ALIASES.items())}  # one of each library


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "timm/vit_base_patch16_224", *FIRST.values()])
def test_export_of_a_name_without_a_network(name, folder, cli):
    code, out, err = cli("export", name, "--onnx")
    assert (code, out) == (5, "")
    assert "RANDOM" not in err
    for way in ("--weights FILE for weights of yours", "--random for random weights"):
        assert way in err
    assert "a tag, such as" in err or "no published weights" in err
    assert list(folder.iterdir()) == []


def test_no_name_gives_random_weights():
    for name in ALIASES:
        with pytest.raises(HubError) as error:
            find_weights(name, offline=True, ways=(RANDOM,))
        if "." not in name:  # a tag stands for certain weights
            assert "random=True for random weights" in error.value.hint
        assert error.value.code == 5
    for name in AMBIGUOUS:
        with pytest.raises(InputError, match="is ambiguous"):
            find_weights(name, offline=True)


def test_python_does_the_same(folder):
    for function in (vit_zoo.load, lambda name: vit_zoo.export(name, ["onnx"]), lambda name: vit_zoo.convert(name, "out", "hf")):
        with pytest.raises(HubError):
            function("google/vit-base-patch16-224")
    assert list(folder.iterdir()) == []
