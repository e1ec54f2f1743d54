"""The checkpoint that another library's tensors are: chosen, read by its dialect, and described by its config."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, RefusedContent, fact, shown
from vit_zoo.files import Stored
from vit_zoo.files.checkpoints import NAMES, read_checkpoint
from vit_zoo.files.sniff import is_file
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.model.config import ModelConfig, stored_problem_type
from vit_zoo.model.resize_recipes import UNSTATED
from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from vit_zoo.weights.candidates import Choice
    from vit_zoo.weights.dialect import Dialect
    from vit_zoo.weights.read import Reading
    from vit_zoo.weights.sidecar import Sidecar

# names of checkpoints, without their suffix, that are the same for all models
GENERIC = {name.partition(".")[0] for name in NAMES} | {Path(name).stem for name in NAMES} | {"checkpoint", "weights"}
HUB_CACHE = re.compile(r"/models--(?:[^/]+--)?([^/]+)/snapshots/[^/]+$")  # a folder of the Hub's cache is called as the commit
ASSUMED = ("heads", "norm_eps", "act", "pool")  # the fields that conventions of dialects decide


def read_tensors(tensors: Mapping[str, Stored], facts: Mapping[str, Any], where: Path | str, module: Any = None) -> Checkpoint:
    """Read the tensors of a file at `where`, or of a live module, with what the library's config states beside them.

    Raises InputError for a fact that must be stated, RefusedContent for tensors that are not those of a ViT.
    """
    from vit_zoo.weights.dialects.timm import TIMM
    from vit_zoo.weights.head_file import with_head_file
    from vit_zoo.weights.keys import check_listing
    from vit_zoo.weights.read import read

    facts = dict(facts)
    check_listing(tensors, where=where)
    allow_drop, prefix, head_file = facts.pop("allow_drop", ()), facts.pop("prefix", None), facts.pop("head", None)
    chosen, dialect, sidecar = (
        _of_file(tensors, prefix, allow_drop, where) if module is None else _of_module(tensors, prefix, module, where)
    )
    model, stated = chosen.tensors, sidecar.facts
    of_head: dict[str, Any] = {}
    if head_file is not None:
        model, of_head = with_head_file(model, dialect, _head_in(head_file), where=where, head_where=head_file)
        # a backbone that is classified by a separate file is not of timm, although it has the names of timm's
        stated = {**({"resize": UNSTATED} if dialect is TIMM else {}), **stated, **of_head}
    try:
        reading = read(model, facts, dialect=dialect, config=stated, where=where)
    except InputError as error:
        if error.details is not None and chosen.notes:
            error.details = {**error.details, "notes": list(chosen.notes)}
        raise
    notes, as_stored = chosen.notes, None
    options: tuple[Option, ...] = ()
    if head_file is not None:
        both = " of the class token and the mean of the patch tokens" if "pool" in of_head else ""
        notes += (f"its head{both} is in {Path(head_file).name}",)
        reading.origin.update(dict.fromkeys(("num_classes", *of_head), Path(head_file).name))
    if module is None:  # what a live module does not state is compared with what it computes
        notes += _assumptions(reading, with_config=bool(sidecar.facts))
        size = _other_size(sidecar, reading.spec, facts, where)
        if size is not None:
            note, option = _size_note(size, reading.spec.image_size, interpolates=sidecar.interpolates)
            notes, options = (*notes, note), (option,)
        if size is not None and sidecar.interpolates:
            as_stored = reading
            reading = read(model, {**facts, "image_size": size}, dialect=dialect, config=stated, where=where)
            reading.origin["image_size"] = "its processor"
    return Checkpoint(
        _config_of(reading, sidecar, where),
        reading.tensors,
        where if isinstance(where, Path) else None,
        reading.dialect.name,
        reading.origin,
        unwanted=(*chosen.left_out, *reading.unwanted),
        notes=notes,
        options=options,
        as_stored=as_stored,
    )


def _of_file(
    tensors: Mapping[str, Stored], prefix: object, allow_drop: Sequence[str], where: Path | str
) -> tuple[Choice, Dialect, Sidecar]:
    """Choose the model in a file, and read the config beside it."""
    from vit_zoo.weights.candidates import choose
    from vit_zoo.weights.detect import detect
    from vit_zoo.weights.sidecar import Sidecar

    chosen = choose(tensors, prefix=prefix, allow_drop=allow_drop, where=where)
    dialect = detect(chosen.tensors, where=where)
    return chosen, dialect, Sidecar.of(where, dialect) if isinstance(where, Path) else Sidecar()


def _of_module(tensors: Mapping[str, Stored], prefix: object, module: Any, where: Path | str) -> tuple[Choice, Dialect, Sidecar]:
    """Take all tensors of a live module, and read its config. Raises RefusedContent for a module around another one."""
    from vit_zoo.weights.candidates import Choice
    from vit_zoo.weights.detect import detect
    from vit_zoo.weights.keys import open_keys
    from vit_zoo.weights.replaced_head import check_head_of, with_head
    from vit_zoo.weights.sidecar import Sidecar

    if prefix is not None:
        raise InputError("prefix does not apply to a module", where=where, hint="pass the inner model")
    dialect = detect(tensors, where=where)
    whole, head = with_head(dialect, tensors, where=where)
    if head is not None:
        check_head_of(module, head, where=where)
    outer = open_keys(dialect, tensors).prefix
    if outer not in dialect.prefixes:
        cause = f"is a wrapper of a model of dialect {dialect.name}, and may compute something else"
        raise RefusedContent(cause, where=where, hint=f"pass the inner model, module.{outer.rstrip('.')}")
    return Choice(whole), dialect, Sidecar.of_module(module, dialect, where=where)


def _config_of(reading: Reading, sidecar: Sidecar, where: Path | str) -> ModelConfig:
    """Return the config of a model that was read: labels and preprocessing are those of the sidecar, if they fit."""
    spec, preprocess = reading.spec, sidecar.preprocess
    file = where if isinstance(where, Path) else None
    if preprocess is not None:
        preprocess = preprocess.for_size(spec.image_size) if len(preprocess.mean) == spec.channels else None
    return ModelConfig(
        name="model" if file is None else _name_of(file),
        spec=spec,
        preprocess=preprocess,
        source=f"{file.name if file else where} ({reading.dialect.name})",
        labels=sidecar.labels if sidecar.labels and len(sidecar.labels) == spec.num_classes else None,
        resize=None if reading.recipe == "timm" else reading.recipe,
        problem_type=stored_problem_type("embedding" if reading.dialect.projects else sidecar.problem_type, spec.num_classes),
    )


def _name_of(file: Path) -> str:
    """Return the name of the model in a file: that of the file or, if it names no model, that of its folder."""
    stem, folder = file.stem, file.parent
    if stem in GENERIC:
        if folder.name in ("", ".."):
            folder = folder.resolve()
        of_cache = HUB_CACHE.search(folder.resolve().as_posix())
        stem = folder.name if of_cache is None else of_cache[1]
    name = "".join(c if (c.isascii() and c.isalnum()) or c in "_.-" else "_" for c in stem).lstrip("_.-")
    return name[:96] or "model"


def _head_in(file: str | os.PathLike[str]) -> Mapping[str, Stored]:
    """Return the tensors of the file of a head. Raises InputError if there is none."""
    if not isinstance(file, str | os.PathLike):
        raise InputError(f"head is the file of a linear head, not {shown(file)}; nearest: heads")
    from vit_zoo.weights.keys import check_listing

    path = Path(file)
    if not is_file(path):
        raise InputError("no such file", where=path, hint="head is the file of a linear head")
    tensors = read_checkpoint(path)
    check_listing(tensors, where=path)
    return tensors


def _assumptions(reading: Reading, *, with_config: bool) -> tuple[str, ...]:
    """The line about the fields that neither the file nor its config nor the user states, if there are any.

    A config of a class that pools in one way does not mention it.
    """
    convention = f"convention of {reading.dialect.name}"
    fields = [name for name in ASSUMED if reading.origin[name] == convention]
    if with_config and fields == ["pool"]:
        return ()
    values = ", ".join(f"{name} = {getattr(reading.spec, name)}" for name in fields)
    return (f"assumed by {convention}: {values}",) if fields else ()


def _other_size(sidecar: Sidecar, spec: ViTSpec, facts: Mapping[str, Any], where: object) -> tuple[int, int] | None:
    """Return the size of the images that the sidecar's preprocessing makes, if it is not the model's and no size is stated.

    Raises InputError if the library would interpolate positions for images that patches do not divide.
    """
    preprocess = sidecar.preprocess
    if preprocess is None or len(preprocess.mean) != spec.channels or preprocess.size == spec.image_size or "image_size" in facts:
        return None
    (height, width), (p, q) = preprocess.size, spec.patch_size
    if sidecar.interpolates and (height % p or width % q):
        cause = f"its preprocessing makes images of {_by(preprocess.size)}, which patches of {_by(spec.patch_size)} do not divide"
        option = _stated(spec.image_size)
        hint = f"state the size: {option} is that of the stored positions"
        raise InputError(cause, where=where, hint=hint, options=[option])
    return preprocess.size


def _size_note(prepared: tuple[int, int], stored: tuple[int, int], *, interpolates: bool) -> tuple[str, Option]:
    """Return the line about a processor of another size than the stored positions, and the option that it names."""
    if interpolates:
        option = _stated(stored)
        cause = f"the model takes images of {_by(prepared)}, as its processor prepares them, and not of {_by(stored)}"
        return f"{cause}; {option} keeps the stored size", option
    option = _stated(prepared)
    cause = f"its processor prepares images of {_by(prepared)}, but the model takes {_by(stored)}, which is used"
    return f"{cause}; {option} resizes the model", option


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _stated(size: tuple[int, int]) -> Option:
    """Return a size as a user states it."""
    return fact("image_size", str(size[0]) if size[0] == size[1] else f"{size[0]},{size[1]}")
