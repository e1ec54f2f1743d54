"""Which architectures have a name, and what each name stands for: the rows of `zoo/*.toml` and of users' own files.

Listing names reads TOML and nothing else; a row becomes a spec, and is validated, when it is asked for.
"""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError

if TYPE_CHECKING:
    from vit_zoo.model_config import ModelConfig
    from vit_zoo.vit_spec import ViTSpec

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,95}")
ROW = {"size": str, "params": int, "gmacs": int | float, "weights": str}  # what a row says beside fields of the spec
TABLES = ("family", "spec", "preprocess", "size", "variant")
MAX_FILE = 262_144  # bytes; the largest of ours has 4 kB
KEY = r"""(?:[\w-]++|"[^"\n]*"|'[^'\n]*')"""
DOTTED = re.compile(rf"(?<![\w-])(?:{KEY}[ \t]*+\.[ \t]*+){{9}}")  # a key of 20,000 parts keeps tomllib busy for 8 s


@dataclass(frozen=True)
class Variant:
    """One named architecture, as its file states it; `fields` are not validated yet."""

    name: str
    family: str
    file: Path
    base: str | None
    fields: dict[str, Any]
    preprocess: dict[str, Any] | None
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Path | None:
        """The folder of the weights that ship with this variant."""
        folder = self.row.get("weights")
        return None if folder is None else self.file.parent / folder


_registered: dict[str, Variant] = {}
_zoo: dict[str, Variant] = {}


def zoo_folder() -> Path:
    """The folder of the zoo's data: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "zoo" if (here / "zoo").is_dir() else here.parent / "zoo"


def variants() -> dict[str, Variant]:
    """Every variant by name: ours, then those of the folder named by VITZOO_PATH, then the registered ones."""
    if not _zoo:
        found: dict[str, Variant] = {}  # all or nothing: an error must not leave a part of the zoo behind
        folders = [zoo_folder()]
        if os.environ.get("VITZOO_PATH"):
            folders.append(Path(os.environ["VITZOO_PATH"]))
        for folder in folders:
            if not folder.is_dir():
                raise InputError("no such folder", where=folder, hint="VITZOO_PATH names it")
            for file in sorted(folder.glob("*.toml")):
                for variant in read_variants(file):
                    _add(found, variant)
        _zoo.update(found)
    return {**_zoo, **_registered}


def list_models(pattern: str | list[str] = "*") -> list[str]:
    """Names that match a shell-style pattern, or any of several, in the zoo's order.

    Raises InputError if a pattern matches nothing.
    """
    names = list(variants())
    found: set[str] = set()
    for wanted in [pattern] if isinstance(pattern, str) else pattern:
        matches = fnmatch.filter(names, wanted)
        if not matches:
            raise InputError(f"no variant matches '{wanted[:96]}'", hint="see `vitzoo list`")
        found.update(matches)
    return [name for name in names if name in found]


def get_variant(name: str) -> Variant:
    """The row of a name. Raises InputError with the nearest names for one that does not exist."""
    known = variants()
    if name not in known:
        from vit_zoo.vit_spec import did_you_mean

        raise InputError(f"no variant '{name[:96]}'{did_you_mean(name, list(known))}", hint="see `vitzoo list`")
    return known[name]


def get_config(name: str, **overrides: Any) -> ModelConfig:
    """The spec and preprocessing that a name stands for, with some fields of the spec replaced, validated."""
    return config_of(get_variant(name), **overrides)


def config_of(variant: Variant, **overrides: Any) -> ModelConfig:
    """A row as a validated config. Raises InputError naming the file and every fault in it."""
    from vit_zoo.model_config import ModelConfig
    from vit_zoo.vit_spec import ViTSpec

    blamed = variant.name if overrides or variant.file == Path() else variant.file
    fields = _fields(variant, ())
    spec = ViTSpec.parse({**fields, **overrides}, where=blamed)
    preprocess = _preprocess(variant, spec, stated=fields.get("channels") == spec.channels)
    return ModelConfig.checked({"name": variant.name, "spec": spec, "preprocess": preprocess}, where=blamed)


def get_spec(name_or_path: str | os.PathLike[str], **overrides: Any) -> ViTSpec:
    """The spec of a registry name, or of a user's TOML file, with some fields replaced."""
    if str(name_or_path).endswith(".toml"):
        return config_of(read_variant(Path(name_or_path)), **overrides).spec
    return get_config(str(name_or_path), **overrides).spec


def register(path_or_spec: str | os.PathLike[str] | ViTSpec, *, name: str | None = None) -> list[str]:
    """Make the variants of a TOML file, or a spec under `name`, known by name in this process; returns the names.

    Raises InputError for a name that is taken, and for any fault of the file, before anything is registered.
    """
    if isinstance(path_or_spec, str | os.PathLike):
        new = list(read_variants(Path(path_or_spec)))
    elif name is None:
        raise InputError("a spec is registered under a name: register(spec, name='...')")
    else:
        new = [Variant(_checked(name, Path()), "registered", Path(), None, path_or_spec.model_dump(), None)]
    known = variants()
    for variant in new:
        if variant.name in known:
            owner = known[variant.name]
            taken = f"the name '{variant.name}' is taken" + (f", by {owner.file}" if owner.file != Path() else "")
            raise InputError(taken, where=None if variant.file == Path() else variant.file)
        config_of(variant)
    for variant in new:
        _add(_registered, variant)
    return [variant.name for variant in new]


def read_variants(file: Path) -> Iterator[Variant]:
    """The variants of a family file (tables family, spec, size, variant) or of a file for a single one."""
    data = _toml(file)
    if "variant" not in data:
        yield _single(file, data)
        return
    unknown = set(data) - set(TABLES)
    if unknown or not all(isinstance(data.get(table, {}), dict) for table in TABLES):
        raise InputError(
            f"unknown table '{min(unknown)}'" if unknown else "family, spec, size and variant are tables", where=file
        )
    shared = dict(data.get("spec", {}))
    base = _base(shared.pop("extends", None), file)
    family = data.get("family", {}).get("name", file.stem)
    if not isinstance(family, str):
        raise InputError("family.name must be text", where=file)
    for name, row in data["variant"].items():
        if not isinstance(row, dict):
            raise InputError(f"variant '{name}' must be a table", where=file)
        for key, kind in ROW.items():
            if key in row and not (isinstance(row[key], kind) and not isinstance(row[key], bool)):
                raise InputError(f"variant '{name}': {key} = {row[key]!r} is of the wrong type", where=file)
        sizes = data.get("size", {}).get(row["size"]) if "size" in row else {}
        if not isinstance(sizes, dict):
            raise InputError(f"variant '{name}' names a size '{row['size']}' that the file does not have", where=file)
        own = {key: value for key, value in row.items() if key not in ROW}
        beside = {key: value for key, value in row.items() if key in ROW}
        yield Variant(_checked(name, file), family, file, base, {**shared, **sizes, **own}, data.get("preprocess"), beside)


def read_variant(file: Path) -> Variant:
    """The one variant of a user's file."""
    found = list(read_variants(file))
    if len(found) != 1:
        raise InputError(f"holds {len(found)} variants; a model is one", where=file, hint="register the file and use a name")
    return found[0]


def _single(file: Path, data: dict[str, Any]) -> Variant:
    """A user's variant: fields of the spec at top level, most of them inherited by `extends`."""
    fields = dict(data)
    name = _checked(fields.pop("name", file.stem), file)
    base, preprocess = _base(fields.pop("extends", None), file), fields.pop("preprocess", None)
    if preprocess is not None and not isinstance(preprocess, dict):
        raise InputError("preprocess must be a table", where=file)
    return Variant(name, "user", file, base, fields, preprocess)


def _fields(variant: Variant, seen: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a variant over those of what it extends."""
    if variant.base is None:
        return variant.fields
    if variant.base in seen:
        raise InputError(f"extends itself: {' -> '.join([*seen, variant.base])}", where=variant.file)
    try:
        base = get_variant(variant.base)
    except InputError as error:
        raise InputError(f"extends '{variant.base}': {error.message}", where=variant.file, hint=error.hint) from None
    return {**_fields(base, (*seen, variant.base)), **variant.fields}


def _base(name: Any, file: Path) -> str | None:
    if name is not None and not isinstance(name, str):
        raise InputError(f"extends = {name!r}: the name of a variant is wanted", where=file)
    return name


def _preprocess(variant: Variant, spec: ViTSpec, *, stated: bool) -> Any:
    """The variant's own preprocessing or that of what it extends, at this spec's size.

    None where channels differ, unless the variant states both.
    """
    table = variant.preprocess
    if table is None and variant.base is not None:
        table = get_variant(variant.base).preprocess
    if table is None:
        return None
    from pydantic import ValidationError

    from vit_zoo.preprocess import Preprocess

    height, width = spec.image_size
    # a table maps image sizes to the shorter edge before the crop; sizes that it does not name are squashed
    edges = table.get("resize_to")
    edge = edges.get(str(height)) if isinstance(edges, dict) else edges
    edge = edge if height == width else None
    try:
        found = Preprocess.model_validate({**table, "size": spec.image_size, "resize_to": edge})
    except ValidationError as error:
        faults = "; ".join(f"preprocess.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(faults, where=variant.file) from None
    fits = len(found.mean) == spec.channels
    return found if fits or (stated and variant.preprocess is not None) else None


def _toml(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            raise InputError("is not a regular file" if file.exists() else "no such file", where=file)
        size = file.stat().st_size
        if size > MAX_FILE:
            raise InputError(f"has {size:,} bytes; a zoo file has at most {MAX_FILE:,}", where=file)
        text = file.read_text(encoding="utf-8")
        if DOTTED.search(text):
            raise InputError("not valid for a zoo file: a key has more than 8 dots", where=file)
        return tomllib.loads(text)
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid TOML: nested too deeply", where=file) from None
    except ValueError as error:  # TOML, UTF-8, integers of thousands of digits
        raise InputError(f"not valid TOML: {error}", where=file) from None
    except OSError as error:
        raise InputError(error.strerror or str(error), where=file) from None


def _checked(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{str(name)[:96]!r} is not a name: lower-case letters, digits and underscores, at most 96", where=file)
    return name


def _add(table: dict[str, Variant], variant: Variant) -> None:
    if variant.name in table:
        raise InputError(f"the name '{variant.name}' is also in {table[variant.name].file}", where=variant.file)
    table[variant.name] = variant
