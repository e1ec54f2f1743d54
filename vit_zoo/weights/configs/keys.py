"""Tables of config keys: what each key of a library's config file does to the model that is read.

A key is read, has no effect on the outputs, or is refused unless its value is the one that a plain ViT has. A key that is in
no table is refused too: what it means is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vit_zoo.errors import RefusedContent


@dataclass(frozen=True)
class Key:
    """What a key does.

    * `note`: what it is read as (fields of the spec, or another part of the model's config), or why it has no effect.
    * `values`: for a refused key, the values that are accepted.
    """

    effect: Literal["read", "none", "refused"]
    note: str = ""
    values: tuple[Any, ...] = ()

    def accepts(self, value: Any) -> bool:
        # 1 == True and 0.0 == False in Python, but not in a config; None stands for a key that is absent
        return self.effect != "refused" or value is None or any(_same(value, each) for each in self.values)


Keys = Mapping[str, Key]


def read(note: str) -> Key:
    """A key that is read as the named field."""
    return Key("read", note)


def ignored(reason: str) -> Key:
    """A key without effect on the outputs."""
    return Key("none", reason)


def only(*values: Any) -> Key:
    """A key that is refused unless it has one of these values or is null."""
    return Key("refused", "", values)


SHAPES = ignored("the tensors show it")
TRAINING = ignored("training only")
INITIAL = ignored("initial weights only")
RUNNING = ignored("how the code runs, not what it computes")
CARD = ignored("information for readers and other programs")


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other) if isinstance(other, bool) else bool(value == other)


def check_keys(config: Mapping[str, Any], keys: Keys, *, where: object, section: str = "") -> None:
    """Raise RefusedContent for the first key that is refused or that is in no table. `section` is the object it stands in."""
    inside = f" of {section}" if section else ""
    for name, value in config.items():
        key = keys.get(name)
        if key is None:
            hint = "remove it from the file if the model's outputs do not depend on it"
            raise RefusedContent(f"unknown config key '{name}'{inside}", where=where, hint=hint)
        if not key.accepts(value):
            cause = f"{name} = {value!r}{inside} is not supported"
            expected = ", ".join(repr(each) for each in key.values)
            raise RefusedContent(f"{cause}, only {expected}" if expected else cause, where=where)


def mapping_in(config: Mapping[str, Any], name: str, *, where: object) -> Mapping[str, Any]:
    """The object under a key; empty where it is absent or null. Raises RefusedContent for another type."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RefusedContent(f"{name} must be an object, got {value!r}", where=where)
    return value
