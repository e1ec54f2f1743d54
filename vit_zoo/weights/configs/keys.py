"""Tables of config keys: what each key of a library's config file does to the model that is read.

A key is read, has no effect on the outputs, or is refused unless its value is the one that a plain ViT has. A key that is in
no table is refused too: what it means is not known. A key that is read has a type, so that readers can compute with its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.weights.configs.values import SECTION, Kind, Unfit


@dataclass(frozen=True)
class Key:
    """What a key does.

    * `note`: what it is read as (fields of the spec, or another part of the model's config), or why it has no effect.
    * `values`: for a refused key, the values that are accepted.
    * `kind`: for a key that is read, the type of its values.
    """

    effect: Literal["read", "none", "refused"]
    note: str = ""
    values: tuple[Any, ...] = ()
    kind: Kind | None = None

    def accepts(self, value: Any) -> bool:
        # 1 == True and 0.0 == False in Python, but not in a config; None stands for a key that is absent
        return self.effect != "refused" or value is None or any(_same(value, each) for each in self.values)


Keys = Mapping[str, Key]


def read(note: str, kind: Kind) -> Key:
    """A key that is read as the named field, and the type of its values."""
    return Key("read", note, kind=kind)


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


def check_keys(config: Mapping[str, Any], keys: Keys, *, where: object, section: str = "") -> dict[str, Any]:
    """The values of the keys that are read, each of its type, and of those that may have few values.

    A key that is read and null is left out, as if it were absent. Raises RefusedContent for the first key that is refused, that
    is in no table, or whose value is of another type. `section` is the object it stands in.
    """
    stated: dict[str, Any] = {}
    for name, value in config.items():
        key = keys.get(name)
        if key is None:
            hint = "remove it from the file if the model's outputs do not depend on it"
            raise RefusedContent(f"unknown config key {shown(name)}{_inside(section)}", where=where, hint=hint)
        if not key.accepts(value):
            cause = f"{name} = {shown(value)}{_inside(section)} is not supported"
            expected = ", ".join(repr(each) for each in key.values)
            raise RefusedContent(f"{cause}, only {expected}" if expected else cause, where=where)
        if key.kind is not None:
            value = _parsed(name, value, key.kind, where=where, section=section)  # noqa: PLW2901
        if key.effect == "refused" or (key.effect == "read" and value is not None):
            stated[name] = value
    return stated


def read_keys(config: Mapping[str, Any], keys: Keys, *, where: object, section: str = "") -> dict[str, Any]:
    """As `check_keys`, of the keys in the table alone."""
    return check_keys({name: config[name] for name in keys if name in config}, keys, where=where, section=section)


def value_of(config: Mapping[str, Any], name: str, keys: Keys, *, where: object = None) -> Any:
    """The value of one key, as of `check_keys`; None where it is absent or null."""
    return read_keys(config, {name: keys[name]}, where=where).get(name)


def section_in(config: Mapping[str, Any], name: str, keys: Keys, *, where: object) -> dict[str, Any]:
    """The keys of the object under a key, as of `check_keys`; empty where it is absent or null."""
    value = config.get(name)
    if value is None:
        return {}
    return check_keys(_parsed(name, value, SECTION, where=where), keys, where=where, section=name)


def _parsed(name: str, value: Any, kind: Kind, *, where: object, section: str = "") -> Any:
    """A value as one of a type, None for null where it stands for an absent value. Raises RefusedContent."""
    if value is None and kind.optional:
        return None
    try:
        return kind.parse(value)
    except Unfit:
        cause = f"{name} = {shown(value)}{_inside(section)}: expected {kind.expected}"
        raise RefusedContent(cause, where=where) from None


def _inside(section: str) -> str:
    return f" of {section}" if section else ""
