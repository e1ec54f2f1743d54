"""Tests of the index of a checkpoint in several files, with values of other types and names of other places."""

from __future__ import annotations

import json

import pytest

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.sharded import MAX_PARTS, parts_of

PLACES = ["", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\0b", "a\nb", "\ud800", "a" * 256, "é" * 200]
MAPS = [None, [], {}, "a", 1, {"a": 1}, {"a": None}, {"a": ["x"]}, {"a": {"x": "y"}}, {"a": True}]


@pytest.fixture
def index(tmp_path):
    return tmp_path / "model.safetensors.index.json"


@pytest.mark.parametrize("place", PLACES)
def test_a_part_outside_the_folder(place, index):
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors", "y": place}}))
    with pytest.raises(RefusedContent, match="refers to a file outside its folder") as refusal:
        read_checkpoint(index, "index")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("value", MAPS)
def test_a_map_of_another_type(value, index):
    index.write_text(json.dumps({"weight_map": value}))
    with pytest.raises(RefusedContent, match="has no weight_map from tensor names to files"):
        read_checkpoint(index, "index")


@pytest.mark.parametrize("name", ["é.safetensors", "model part 1.bin", "..x", "model-1.safetensors"])
def test_names_of_parts(name, index):
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    assert parts_of(index) == {"x": name}
    with pytest.raises(RefusedContent, match="is missing"):
        read_checkpoint(index, "index")


def test_an_index_that_refers_to_itself_or_to_many_files(index):
    index.write_text(json.dumps({"weight_map": {"x": index.name}}))
    with pytest.raises(RefusedContent, match="expected a checkpoint, got a file of kind 'json'"):
        read_checkpoint(index, "index")
    index.write_text(json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(MAX_PARTS + 1)}}))
    with pytest.raises(RefusedContent, match=r"refers to 10,001 files; the limit is 10,000"):
        read_checkpoint(index, "index")
    index.write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_checkpoint(index, "index")
