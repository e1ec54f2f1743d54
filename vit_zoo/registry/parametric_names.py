"""Parametric names: `family_sizepatch[_regN][_gap|_map][_imagesize]`, resolved without a row in the registry.

A name may have the suffixes in any order. The canonical name has them in the order above and omits the image size if it is
the family's default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vit_zoo.errors import InputError
from vit_zoo.registry.family_file import Family, Variant, layers_of

NUMBER = "[1-9][0-9]{0,4}"
SIZE_AND_PATCH = re.compile(rf"([a-z0-9]*[a-z])({NUMBER})")
SUFFIX = re.compile(rf"(reg)({NUMBER})|(gap|map)|({NUMBER})")


@dataclass(frozen=True)
class NameParts:
    """The parts of a parametric name."""

    family: Family
    size: str
    patch: int
    registers: int = 0
    pool: str | None = None
    image: int | None = None

    @property
    def canonical(self) -> str:
        """The canonical name."""
        suffixes = [f"_reg{self.registers}"] if self.registers else []
        suffixes += [f"_{self.pool}"] if self.pool else []
        suffixes += [f"_{self.image}"] if self.image is not None and self.image != self.family.shared.get("image_size") else []
        return f"{self.family.name}_{self.size}{self.patch}{''.join(suffixes)}"


def parts_of(name: str, families: Mapping[str, Family]) -> NameParts | None:
    """Parse a name; return None if it is not parametric or starts with no known family.

    Raises InputError for a parametric name with a size or suffix that its family does not have, with two suffixes of one kind,
    or with a patch size that does not divide the image size.
    """
    family = _family_of(name, families)
    if family is None:
        return None
    middle, *suffixes = name[len(family.name) + 1 :].split("_")
    size_and_patch, matches = SIZE_AND_PATCH.fullmatch(middle), [SUFFIX.fullmatch(suffix) for suffix in suffixes]
    if size_and_patch is None or not all(matches):
        return None
    size, patch = size_and_patch[1], int(size_and_patch[2])
    given: dict[str, str] = {}
    for match in matches:
        assert match is not None
        kind = "reg" if match[1] else "pool" if match[3] else "image"
        if kind in given:
            raise _no_variant(name, f"two suffixes of one kind: {given[kind]} and {match[0]}")
        given[kind] = match[0]
    if size not in family.sizes:
        raise _no_variant(name, f"family {family.name} has no size '{size}'; choose from {', '.join(family.sizes)}")
    for form in [part for part in ("reg" if "reg" in given else None, given.get("pool")) if part]:
        if form not in family.forms:
            choices = f"choose from {', '.join(f'_{known}' for known in family.forms)}" if family.forms else "it has none"
            raise _no_variant(name, f"family {family.name} has no suffix _{form}; {choices}")
    image = int(given["image"]) if "image" in given else None
    image_size = image if image is not None else family.shared.get("image_size")
    if isinstance(image_size, int) and image_size % patch:
        multiples = (image_size // patch * patch, (image_size // patch + 1) * patch)
        near = " or ".join(str(side) for side in multiples if side)
        raise _no_variant(name, f"patch size {patch} does not divide image size {image_size}; nearest: {near}")
    return NameParts(family, size, patch, int(given.get("reg", "reg0")[3:]), given.get("pool"), image)


def variant_of(parts: NameParts) -> Variant:
    """Return the variant of a parametric name, equal to a registry row for the same architecture."""
    forms = [form for form, given in (("reg", parts.registers), (parts.pool, parts.pool)) if form and given]
    family, name = parts.family, parts.canonical
    layers = layers_of(family, parts.size, forms, variant=name)
    own = {"patch_size": parts.patch, **({"registers": parts.registers} if parts.registers else {})}
    own |= {} if parts.image is None else {"image_size": parts.image}
    return Variant(name, family.name, family.file, family.base, (*layers, ("the name", own)), family.preprocess)


def _family_of(name: str, families: Mapping[str, Family]) -> Family | None:
    """Return the family whose name is the longest prefix of this name."""
    matches = [family for family in families.values() if name.startswith(f"{family.name}_")]
    return max(matches, key=lambda family: len(family.name), default=None)


def _no_variant(name: str, reason: str) -> InputError:
    return InputError(f"no variant '{name[:96]}'", hint=reason)
