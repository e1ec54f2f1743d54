"""Weights divided over several files, as transformers does with large ones: an index names the file of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vit_zoo.errors import RefusedContent
from vit_zoo.files.sniff import read_json
from vit_zoo.files.stored import Stored


def read_sharded(index: Path, open_one: Callable[[Path], Mapping[str, Stored]]) -> dict[str, Stored]:
    """The tensors of all files that an index names, each of which lies in its folder. Raises RefusedContent otherwise."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise RefusedContent("has no weight_map of names and files", where=index)
    found: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        if not file or Path(file).name != file or file in (".", "..") or "\\" in file:
            raise RefusedContent(f"names a file outside its folder: {file!r}", where=index)
        path = index.with_name(file)
        if not path.is_file():
            raise RefusedContent(f"its part {file!r} is missing", where=index)
        for name, tensor in open_one(path).items():
            if places.get(name) != file:
                raise RefusedContent(f"does not say that {name!r} is in {file!r}", where=index)
            found[name] = tensor
    missing = [name for name in places if name not in found]
    if missing:
        raise RefusedContent(f"{missing[0]!r} is not in {places[missing[0]]!r}", where=index)
    return found
