"""The keys of a checkpoint: prefixes, and the names that a dialect's rules have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vit_zoo.weights.dialect import Dialect

WRAPPERS = r"(?:_orig_mod\.|module\.|model\.|backbone\.)*"  # of torch.compile, DDP, Lightning, and DINO's training files


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
        keys = {their: key for key, their in self.names.items()}
        if name in keys:
            return keys[name]
        for end in sorted((match.end() for match in re.finditer(r"[./]", name)), reverse=True):
            for their, key in keys.items():
                if their.startswith(name[:end]) and key.endswith(their[end:]):
                    return key.removesuffix(their[end:]) + name[end:]
        return name if name.startswith(self.dialect.unprefixed) else self.prefix + name

    def key_for_ours(self, ours: str) -> str:
        """The key of one of our tensors in this file, or what it would be if the tensor were there; for messages."""
        return self.key_for(self.dialect.their_name(ours))


def open_keys(dialect: Dialect, keys: Iterable[str]) -> Opened:
    """Find the model's prefix among the keys and name each key as the rules do."""
    keys = list(keys)
    wrapper, prefix = _prefix(dialect, keys)
    bare = (*dialect.unprefixed, *dialect.sometimes_unprefixed)
    names, outside = {}, {}
    for key in keys:
        rest = key.removeprefix(wrapper)
        if key.startswith(prefix):
            names[key] = _renamed(dialect, key.removeprefix(prefix))
        elif prefix == wrapper or rest.startswith(bare):
            names[key] = _renamed(dialect, rest)
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


def _renamed(dialect: Dialect, name: str) -> str:
    for old, new in dialect.renames:
        name = re.sub(old, new, name)
    return name
