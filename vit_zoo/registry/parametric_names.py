"""What a name says by itself: `family_sizepatch[_regN][_gap|_map][_imagesize]`, resolved with no row in the registry.

The suffixes may come in any order; the canonical name has them in this one, without an image size that is the family's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vit_zoo.errors import InputError
from vit_zoo.registry.family_file import Family, Variant, layers_of

NUMBER = "[1-9][0-9]{0,4}"
PATCHED = re.compile(rf"([a-z0-9]*[a-z])({NUMBER})")
SUFFIX = re.compile(rf"(reg)({NUMBER})|(gap|map)|({NUMBER})")


@dataclass(frozen=True)
class Parts:
    """A name taken apart."""

    family: Family
    size: str
    patch: int
    registers: int = 0
    pool: str | None = None
    image: int | None = None

    @property
    def canonical(self) -> str:
        suffixes = [f"_reg{self.registers}"] if self.registers else []
        suffixes += [f"_{self.pool}"] if self.pool else []
        suffixes += [f"_{self.image}"] if self.image is not None and self.image != self.family.shared.get("image_size") else []
        return f"{self.family.name}_{self.size}{self.patch}{''.join(suffixes)}"


def parts_of(name: str, families: Mapping[str, Family]) -> Parts | None:
    """The parts of a name; None for one of another form, or of no family that is known.

    Raises InputError for a name of the right form that says what its family does not have.
    """
    family = _family_of(name, families)
    if family is None:
        return None
    middle, *suffixes = name[len(family.name) + 1 :].split("_")
    patched, found = PATCHED.fullmatch(middle), [SUFFIX.fullmatch(suffix) for suffix in suffixes]
    if patched is None or not all(found):
        return None
    size, patch = patched[1], int(patched[2])
    said: dict[str, str] = {}
    for match in found:
        assert match is not None
        kind = "reg" if match[1] else "pool" if match[3] else "image"
        if kind in said:
            raise _refused(name, f"it says {said[kind]} and {match[0]}")
        said[kind] = match[0]
    if size not in family.sizes:
        raise _refused(name, f"family {family.name} has the sizes {', '.join(family.sizes)}")
    for form in [part for part in ("reg" if "reg" in said else None, said.get("pool")) if part]:
        if form not in family.forms:
            have = ", ".join(f"_{known}" for known in family.forms) or "no such suffix"
            raise _refused(name, f"family {family.name} has no form _{form}: it has {have}")
    image = int(said["image"]) if "image" in said else None
    whole = image if image is not None else family.shared.get("image_size")
    if isinstance(whole, int) and whole % patch:
        near = " or ".join(str(side) for side in (whole // patch * patch, (whole // patch + 1) * patch) if side)
        raise _refused(name, f"patch size {patch} does not divide image size {whole}; nearest: {near}")
    return Parts(family, size, patch, int(said.get("reg", "reg0")[3:]), said.get("pool"), image)


def variant_of(parts: Parts) -> Variant:
    """The architecture that a name stands for, as a row of the registry would state it."""
    forms = [form for form, wanted in (("reg", parts.registers), (parts.pool, parts.pool)) if form and wanted]
    family, name = parts.family, parts.canonical
    layers = layers_of(family, parts.size, forms, variant=name)
    own = {"patch_size": parts.patch, **({"registers": parts.registers} if parts.registers else {})}
    own |= {} if parts.image is None else {"image_size": parts.image}
    return Variant(name, family.name, family.file, family.base, (*layers, ("the name", own)), family.preprocess)


def _family_of(name: str, families: Mapping[str, Family]) -> Family | None:
    """The family with the longest name that this one begins with."""
    known = [family for family in families.values() if name.startswith(f"{family.name}_")]
    return max(known, key=lambda family: len(family.name), default=None)


def _refused(name: str, reason: str) -> InputError:
    return InputError(f"no variant '{name[:96]}'", hint=reason)
