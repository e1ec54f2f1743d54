"""Which weights are published for a name, by whom, under which licence: the data of `zoo/tags/*.toml`.

Read when a name is shown or a tag is asked for; nothing here is on this machine or is downloaded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.registry.family_file import read_toml


@dataclass(frozen=True)
class Tag:
    """One published checkpoint: `repo` is a repository of the Hub, or the address of a folder; `file` is in it."""

    name: str
    tag: str
    repo: str
    file: str
    dialect: str
    revision: str  # "unpinned", or a commit
    licence: str
    num_classes: int  # 0 for a feature tower
    labels: str | None  # the label set, see `zoo/labels`
    top1: float | None  # ImageNet-1k, in percent, as `top1_by` reports it
    top1_by: str | None
    preprocess: dict[str, Any]
    spec: dict[str, Any]  # fields in which these weights differ from the name
    origin: str | None  # where the repository's author took them from

    @property
    def full_name(self) -> str:
        return f"{self.name}.{self.tag}"

    @property
    def address(self) -> str:
        return f"{self.repo}/{self.file}"

    @property
    def is_on_hub(self) -> bool:
        return "://" not in self.repo

    @property
    def reported(self) -> str:
        return "" if self.top1 is None else f"{self.top1:g} % ({self.top1_by})"


@functools.cache
def read_tags(file: Path) -> dict[str, dict[str, Tag]]:
    """The tags of a family's names, the default of each name first; empty where nothing is published; read once."""
    if not file.is_file():
        return {}
    data = read_toml(file)
    pixels, shared = data.pop("pixels", {}), data.pop("shared", {})
    try:
        return {
            name: {tag: _tag(name, tag, {**shared, **row}, pixels) for tag, row in rows.items()} for name, rows in data.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"a tag is not whole: {error}", where=file) from None


def _tag(name: str, tag: str, stated: dict[str, Any], pixels: dict[str, Any]) -> Tag:
    fields = dict(stated)
    preprocess = {"interpolation": fields.pop("interpolation"), **pixels[fields.pop("pixels")]}
    for key in ("crop", "squash", "resize_to"):
        if key in fields:
            preprocess[key] = fields.pop(key)
    optional: dict[str, Any] = {"labels": None, "top1": None, "top1_by": None, "origin": None, "spec": {}}
    fields = {**optional, **fields}
    if fields["top1"] is None:
        fields["top1_by"] = None
    return Tag(name=name, tag=tag, preprocess=preprocess, **fields)
