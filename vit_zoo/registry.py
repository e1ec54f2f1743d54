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
ROW = ("size", "params", "gmacs", "weights")  # what a row says beside fields of the spec
TABLES = ("family", "spec", "preprocess", "size", "variant")
MAX_FILE = 262_144  # bytes; the largest of ours has 4 kB


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
        folders = [zoo_folder()]
        if os.environ.get("VITZOO_PATH"):
            folders.append(Path(os.environ["VITZOO_PATH"]))
        for folder in folders:
            if not folder.is_dir():
                raise InputError("no such folder", where=folder, hint="VITZOO_PATH names it")
            for file in sorted(folder.glob("*.toml")):
                for variant in read_variants(file):
                    _add(_zoo, variant)
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
            raise InputError(f"no variant matches '{wanted}'", hint="see `vitzoo list`")
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
    spec = ViTSpec.parse({**_fields(variant, ()), **overrides}, where=blamed)
    return ModelConfig(name=variant.name, spec=spec, preprocess=_preprocess(variant, spec))


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
            raise InputError(f"the name '{variant.name}' is taken, by {known[variant.name].file}", where=path_or_spec)
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
    base = shared.pop("extends", None)
    for name, row in data["variant"].items():
        if not isinstance(row, dict):
            raise InputError(f"variant '{name}' must be a table", where=file)
        sizes = data.get("size", {}).get(row.get("size"), {} if "size" not in row else None)
        if sizes is None:
            raise InputError(f"variant '{name}' names a size '{row['size']}' that the file does not have", where=file)
        own = {key: value for key, value in row.items() if key not in ROW}
        beside = {key: value for key, value in row.items() if key in ROW}
        family = data.get("family", {}).get("name", file.stem)
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
    base, preprocess = fields.pop("extends", None), fields.pop("preprocess", None)
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


def _preprocess(variant: Variant, spec: ViTSpec) -> Any:
    """The variant's own preprocessing or that of what it extends, at this spec's size; None where channels differ."""
    stated = variant.preprocess
    if stated is None and variant.base is not None:
        stated = get_variant(variant.base).preprocess
    if stated is None or (variant.preprocess is None and len(stated.get("mean", ())) != spec.channels):
        return None
    from pydantic import ValidationError

    from vit_zoo.preprocess import Preprocess

    height, width = spec.image_size
    # a table maps image sizes to the shorter edge before the crop; sizes that it does not name are squashed
    edges = stated.get("resize_to")
    edge = edges.get(str(height)) if isinstance(edges, dict) else edges
    edge = edge if height == width else None
    try:
        return Preprocess.model_validate({**stated, "size": spec.image_size, "resize_to": edge})
    except ValidationError as error:
        faults = "; ".join(f"preprocess.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(faults, where=variant.file) from None


def _toml(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        if size > MAX_FILE:
            raise InputError(f"has {size:,} bytes; a zoo file has at most {MAX_FILE:,}", where=file)
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not valid TOML: {error}", where=file) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not valid TOML: {type(error).__name__}", where=file) from None
    except FileNotFoundError:
        raise InputError("no such file", where=file) from None
    except OSError as error:
        raise InputError(error.strerror or str(error), where=file) from None


def _checked(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a name: lower-case letters, digits and underscores, at most 96", where=file)
    return name


def _add(table: dict[str, Variant], variant: Variant) -> None:
    if variant.name in table:
        raise InputError(f"the name '{variant.name}' is also in {table[variant.name].file}", where=variant.file)
    table[variant.name] = variant
