"""The keys of a checkpoint: prefixes, and the names that a dialect's rules have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.files import Stored
from vit_zoo.files.safetensors import MAX_TENSORS
from vit_zoo.weights.dialect import Dialect

WRAPPERS = r"(?:_orig_mod\.|module\.|model\.|backbone\.)*"  # of torch.compile, DDP, Lightning, and DINO's training files
MAX_NAME = 500  # characters
MAX_AXES = 32  # of an array in NumPy 1
PARTS = 12  # more than a name of any rule has


@dataclass(frozen=True)
class Opened:
    """The keys of a file, sorted by whether they belong to the model, with their names in the dialect's rules.

    * `prefix`: what the model's keys begin with, wrappers such as `module.` included.
    * `names`: the name of each key of the model.
    * `outside`: the name of each other key, without the wrapper: it may be the same as a name of the model.
    """

    dialect: Dialect
    prefix: str
    names: Mapping[str, str]
    outside: Mapping[str, str]

    def is_unwanted(self, key: str) -> bool:
        """Whether a key is known to be not part of the model."""
        outside = key in self.outside
        return self.dialect.is_unwanted(self.outside[key] if outside else self.names[key], outside=outside)

    def unknown(self) -> list[str]:
        """The keys that no rule uses and that are not known to be unwanted."""
        named = [key for key, name in self.names.items() if not self.dialect.has_rule_for(name)]
        return [key for key in (*named, *self.outside) if not self.is_unwanted(key)]

    def key_for(self, name: str) -> str:
        """The key of a name of the rules in this file, or what it would be, by the key with the most similar name."""
        if name in self._keys:
            return self._keys[name]
        for end in reversed(_ends(name)):
            if name[:end] in self._beginnings:
                return self._beginnings[name[:end]] + name[end:]
        return name if name.startswith(self.dialect.unprefixed) else self.prefix + name

    @cached_property
    def _keys(self) -> dict[str, str]:
        """The key of each name."""
        return {their: key for key, their in self.names.items()}

    @cached_property
    def _beginnings(self) -> dict[str, str]:
        """The beginnings of names, up to a dot or a slash, each with that of the first key whose rest is that of its name."""
        beginnings: dict[str, str] = {}
        for their, key in self._keys.items():
            for end in _ends(their):
                if key.endswith(their[end:]):
                    beginnings.setdefault(their[:end], key.removesuffix(their[end:]))
        return beginnings

    def key_for_ours(self, ours: str) -> str:
        """The key of one of our tensors in this file, or what it would be if the tensor were there; for messages."""
        return self.key_for(self.dialect.their_name(ours))


def _ends(name: str) -> list[int]:
    """The places after the dots and slashes of a name."""
    return [match.end() for match in re.finditer(r"[./]", name)][:PARTS]


def check_listing(tensors: Mapping[str, Stored], *, where: object) -> None:
    """Raise RefusedContent for more tensors, longer names or more axes than any checkpoint has, before any work on them."""
    if len(tensors) > MAX_TENSORS:
        raise RefusedContent(f"has {len(tensors):,} tensors; the limit is {MAX_TENSORS:,}", where=where)
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME:
            raise RefusedContent(f"has a tensor name of {len(name):,} characters; the limit is {MAX_NAME}", where=where)
        if len(tensor.shape) > MAX_AXES:
            raise RefusedContent(f"{shown(name)} has {len(tensor.shape):,} axes; the limit is {MAX_AXES}", where=where)


def open_keys(dialect: Dialect, keys: Iterable[str]) -> Opened:
    """Find the model's prefix among the keys and name each key as the rules do."""
    keys = list(keys)
    wrapper, prefix = _prefix(dialect, keys)
    bare = (*dialect.unprefixed, *dialect.sometimes_unprefixed)
    names, outside = {}, {}
    for key in keys:
        rest = key.removeprefix(wrapper)
        if key.startswith(prefix):
            names[key] = dialect.renamed(key.removeprefix(prefix))
        elif prefix == wrapper or rest.startswith(bare):
            names[key] = dialect.renamed(rest)
        else:
            outside[key] = rest
    return Opened(dialect, prefix, names, outside)


def _prefix(dialect: Dialect, keys: list[str]) -> tuple[str, str]:
    """The wrapper, and the wrapper with the model's own prefix, of the first tensor of the dialect that is there."""
    pattern = re.compile(f"({WRAPPERS})(?:{'|'.join(map(re.escape, dialect.prefixes))})")
    lines = "\n".join([*keys, ""])
    for name in (*dialect.signature, *(theirs.replace("{i}", "0") for rule_ in dialect.rules for theirs in rule_.theirs)):
        if f"{name}\n" not in lines:  # most names are in no key, and one search takes less time than a test of each key
            continue
        stems = [key[: len(key) - len(name)] for key in keys if key.endswith(name)]
        matches = [match for match in map(pattern.fullmatch, stems) if match]
        if matches:
            return matches[0][1], matches[0][0]
    return "", ""
