"""Published weights of each registry name, called tags, with repository and licence; data in `zoo/tags/*.toml`.

The files are read to show a model or to resolve a name with a tag. This module downloads nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError, shown
from vit_zoo.registry.family_file import read_toml

# how the dialect of a file is named in the table of dialects, where a tag names the library instead
DETECTED_AS = {"transformers": "hf-", "deit": "timm", "dino": "timm", "ijepa": "timm"}

TYPES: dict[str, Any] = {
    "repo": str, "file": str, "dialect": str, "revision": str, "licence": str, "num_classes": int, "labels": str,
    "top1": int | float, "top1_by": str, "origin": str, "spec": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Tag:
    """One published checkpoint of a registry name.

    `repo` is a Hub repository or the URL of a folder; `file` is the checkpoint's path in it.
    """

    name: str
    tag: str
    repo: str
    file: str
    dialect: str
    revision: str  # a commit, or "unpinned"
    licence: str
    num_classes: int  # 0 for a feature extractor without a head
    labels: str | None  # name of the label set in `zoo/labels`
    top1: float | None  # ImageNet-1k top-1 accuracy in percent, as reported by `top1_by`
    top1_by: str | None
    preprocess: dict[str, Any]
    spec: dict[str, Any]  # spec fields that differ from those of the registry name
    origin: str | None  # URL of the original checkpoint, if the repository holds a conversion

    @property
    def full_name(self) -> str:
        """`NAME.TAG`."""
        return f"{self.name}.{self.tag}"

    @property
    def address(self) -> str:
        """`REPO/FILE`."""
        return f"{self.repo}/{self.file}"

    @property
    def is_on_hub(self) -> bool:
        return "://" not in self.repo

    def has_dialect(self, detected: str | None) -> bool:
        """Return whether the dialect that was detected in a file is that of these weights, or ours: a conversion of them."""
        return detected is not None and detected.startswith(("vitzoo", DETECTED_AS.get(self.dialect, self.dialect)))

    @property
    def reported(self) -> str:
        """The reported top-1 accuracy with its source; empty if none is known."""
        return "" if self.top1 is None else f"{self.top1:g} % ({self.top1_by})"


@functools.cache
def read_tags(file: Path) -> dict[str, dict[str, Tag]]:
    """Return the tags of each variant in a family's tag file, read once; the first tag of a variant is its default.

    Empty if the file does not exist. Raises InputError for an entry with missing or unknown keys.
    """
    if not file.is_file():
        return {}
    data = read_toml(file)
    pixels, shared = data.pop("pixels", {}), data.pop("shared", {})
    try:
        return {
            name: {tag: _tag(name, tag, {**shared, **row}, pixels) for tag, row in rows.items()} for name, rows in data.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"invalid tag: {error}", where=file) from None


def _tag(name: str, tag: str, row: dict[str, Any], pixels: dict[str, Any]) -> Tag:
    fields = dict(row)
    preprocess = {"interpolation": fields.pop("interpolation"), **pixels[fields.pop("pixels")]}
    if fields["dialect"] == "transformers":
        preprocess["crop_rounding"] = "down"
    for key in ("crop", "squash", "resize_to", "resize_dtype"):
        if key in fields:
            preprocess[key] = fields.pop(key)
    optional: dict[str, Any] = {"labels": None, "top1": None, "top1_by": None, "origin": None, "spec": {}}
    fields = {**optional, **fields}
    if fields["top1"] is None:
        fields["top1_by"] = None
    for key, kind in TYPES.items():
        value = fields[key]
        if not (value is None and key in optional) and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TypeError(f"{name}.{tag}: {key} = {shown(value)}")
    if fields["top1"] is not None and not 0 <= fields["top1"] <= 100:
        raise TypeError(f"{name}.{tag}: top1 = {shown(fields['top1'])}: must be a percentage")
    return Tag(name=name, tag=tag, preprocess=preprocess, **fields)
