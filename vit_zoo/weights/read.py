"""Which dialect a set of tensors speaks, and what the file, its config, the source's convention and the user say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, RefusedContent, did_you_mean
from vit_zoo.files import Stored
from vit_zoo.model.resize_recipes import recipe_named
from vit_zoo.model.spec import ViTSpec
from vit_zoo.weights.detect import detect
from vit_zoo.weights.dialect import Dialect
from vit_zoo.weights.infer import TRAINING, from_shapes, heads_of, pair, pool_tokens, prefixes, stored_grid
from vit_zoo.weights.resize import resize_kernel, resize_positions
from vit_zoo.weights.translate import Translation, check_needs, check_tensors, to_ours

SOURCE_FACTS = ("grid", "resize")  # what is said of the file alone: the grid of its positions, the recipe to resize them by
# what no shape tells of every file, and how it is stated
ASKED = {"heads": "N", "norm_eps": "1e-5, say", "act": "gelu, say", "image_size": "HEIGHT or HEIGHT,WIDTH"}


@dataclass(frozen=True)
class Reading:
    """A checkpoint understood: its dialect, its tensors under our names, the spec, and where each field came from."""

    dialect: Dialect
    tensors: dict[str, Stored]
    spec: ViTSpec
    origin: dict[str, str]
    unwanted: tuple[str, ...] = ()  # tensors of the file that are known and not part of the model
    recipe: str = "timm"  # to resize it by


def read(
    tensors: Mapping[str, Stored],
    facts: Mapping[str, Any],
    *,
    dialect: Dialect | None = None,
    config: Mapping[str, Any] | None = None,
    where: object,
) -> Reading:
    """Detect the dialect, rename, infer the spec, account for every tensor, resize where another size is stated.

    `facts` are what the user states, `config` what a config beside the file says. Raises InputError naming a fact that
    nobody states, RefusedContent for tensors that do not fit together.
    """
    check_facts(facts, where=where)
    config = dict(config or {})
    dialect = dialect or detect(tensors, where=where)
    translation = to_ours(dialect, tensors, {**config, **facts}, where=where)
    named = translation.opened.key_for_ours
    check_needs(dialect, translation, {**config, **facts}, where=where)
    # vit-pytorch stores an absent class token as an empty tensor
    ours = {name: tensor for name, tensor in translation.tensors.items() if 0 not in tensor.shape}
    ours = _one_type(ours, promotes=dialect.computes_in_float32)
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    fields, origin = _fields(dialect, translation, from_shapes(shapes, where=where, named=named), config, facts, where=where)
    if "pos_embed" in shapes:
        _place(ours, fields, origin, config, facts, dialect.position_covers, named, where=where)
    elif "grid" in facts:
        raise InputError("there are no positions in the file that could have a grid", where=where)
    unknown = [fact for fact in ASKED if fact not in fields]
    if unknown:
        raise _untold(unknown, dialect, fields, origin, where=where)
    stored = ours["patch_embed.proj.weight"].shape[2:]
    fields["patch_size"] = stored
    spec = _spec(fields, origin, where=where)
    check_tensors(ours, spec.shapes(), where=where, named=named)
    recipe = dialect.resize_with_registers if dialect.resize_with_registers and spec.registers else dialect.resize
    ours, resized_spec = resized({name: ours[name] for name in spec.shapes()}, spec, facts, recipe, where=where)
    recipe = facts.get("resize", recipe)
    return Reading(dialect, ours, resized_spec, {f: origin[f] for f in ViTSpec.model_fields}, translation.unwanted, recipe)


def _untold(unknown: list[str], dialect: Dialect, fields: dict[str, Any], origin: dict[str, str], *, where: object) -> InputError:
    """Which facts nobody states; `details` holds what is known."""
    first = unknown[0]
    no_size = f", and no variant is {fields['dim']} wide, {fields['depth']} deep" if first == "heads" else ""
    known = {name: value for name, value in fields.items() if name in ViTSpec.model_fields}
    sources = {name: origin[name] for name in known if name in origin}
    details = {"dialect": dialect.name, "known": known, "origin": sources, "unknown": unknown}
    cause = f"the file does not tell {', '.join(unknown)}{no_size}"
    return InputError(cause, where=where, hint=f"state it: {first}={ASKED[first]}", details=details)


def resized(
    tensors: dict[str, Stored], spec: ViTSpec, facts: Mapping[str, Any], recipe: str, *, where: object
) -> tuple[dict[str, Stored], ViTSpec]:
    """A model for the image and the patch that are stated: positions and the patch projection by a recipe.

    Raises InputError for sizes that do not fit together, or a recipe where nothing is resized.
    """
    patch = pair(facts.get("patch_size", spec.patch_size))
    image = pair(facts.get("image_size", spec.image_size))
    if image[0] % patch[0] or image[1] % patch[1]:
        raise InputError(f"a patch of {patch[0]}x{patch[1]} does not divide an image of {image[0]}x{image[1]}", where=where)
    if (image, patch) == (spec.image_size, spec.patch_size):
        if "resize" in facts:
            raise InputError(f"nothing is resized: it is for images of {image[0]}x{image[1]} already", where=where)
        return tensors, spec
    recipe = facts.get("resize", recipe)
    new = spec.replace(image_size=image, patch_size=patch)
    found = dict(tensors)
    if patch != spec.patch_size:
        if spec.patch_norms:
            raise InputError("a patch of another size has another norm: patch_norms cannot be resized", where=where)
        found["patch_embed.proj.weight"] = resize_kernel(tensors["patch_embed.proj.weight"], patch, recipe)
    if spec.pos == "learned":
        prefix = tensors["pos_embed"].shape[1] - spec.patch_tokens
        found["pos_embed"] = resize_positions(tensors["pos_embed"], prefix, spec.grid, new.grid, recipe)
    return found, new


def check_facts(facts: Mapping[str, Any], *, where: object) -> None:
    known = [*ViTSpec.model_fields, *SOURCE_FACTS]
    for name in facts:
        if name not in known:
            raise InputError(f"unknown fact '{name}'{did_you_mean(name, known)}", where=where)
    if "resize" in facts:
        recipe_named(facts["resize"])


def _fields(
    dialect: Dialect,
    translation: Translation,
    shapes: Mapping[str, Any],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    where: object,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every field but those of the image, and where it comes from: shapes, then the convention, the config, the user."""
    stated = {name: value for name, value in facts.items() if name not in (*SOURCE_FACTS, "patch_size")}
    told = {name: value for name, value in config.items() if name != "image_size" or shapes["pos"] != "learned"}
    conventions = dialect.conventions
    fields: dict[str, Any] = {**shapes, **translation.facts, **conventions}
    assumed = f"convention of {dialect.name}"
    origin = {
        **dict.fromkeys([*shapes, *translation.facts], "shapes"),
        **dict.fromkeys(("pool", "pool_tokens", *conventions), assumed),
    }
    origin.update(dict.fromkeys(TRAINING, "not stored: training only"))
    for name, value in told.items():
        if name in shapes and origin.get(name) == "shapes" and name != "patch_size" and value != shapes[name]:
            raise RefusedContent(f"its config says {name} = {value}, its tensors {shapes[name]}", where=where)
        if origin.get(name) != "shapes":
            fields[name], origin[name] = value, "its config"
    if fields["mlp"] == "swiglu" and "act" not in told:
        fields["act"], origin["act"] = "silu", "what SwiGLU means"
    if "heads" not in {**told, **facts}:
        if dialect.head_width and fields["inner"] % dialect.head_width == 0:
            fields["heads"], origin["heads"] = fields["inner"] // dialect.head_width, assumed
        else:
            found_heads = heads_of(fields)
            if found_heads is not None:
                fields["heads"], origin["heads"] = found_heads
    fields.update(stated)
    origin.update({name: "stated" for name in facts if name not in SOURCE_FACTS})
    if "pool_tokens" not in {**facts, **conventions, **told}:
        fields["pool_tokens"] = pool_tokens(fields["pool"], prefixed=bool(fields["class_token"] or fields["registers"]))
    return fields, origin


def _place(
    ours: dict[str, Stored], fields: dict[str, Any], origin: dict[str, str], config: Mapping[str, Any], facts: Mapping[str, Any],
    allowed: tuple[str, ...], named: Callable[[str], str], *, where: object,
) -> None:  # fmt: skip
    """Set what the stored positions cover, and the image that they are of."""
    length, (p, q) = ours["pos_embed"].shape[1], pair(ours["patch_embed.proj.weight"].shape[2:])
    image = pair(facts["image_size"]) if "image_size" in facts else None
    grid = pair(facts["grid"]) if "grid" in facts else None
    if grid is None and "image_size" in config:
        height, width = pair(config["image_size"])
        grid = (height // p, width // q)
    before = prefixes(fields, allowed)
    fields["pos_covers"], (rows, columns) = stored_grid(length, before, (p, q), grid=grid, image=image, where=where, named=named)
    fields["image_size"] = (rows * p, columns * q)
    if image is None:
        origin["image_size"] = "stated" if "grid" in facts else "its config" if "image_size" in config else "shapes"


def _spec(fields: dict[str, Any], origin: dict[str, str], *, where: object) -> ViTSpec:
    inner = fields.pop("inner")
    origin.pop("inner")
    if inner % fields["heads"] != 0:
        raise InputError(f"{fields['heads']} heads do not divide an attention of {inner}", where=where)
    fields.setdefault("dim_head", inner // fields["heads"])
    origin.setdefault("dim_head", "shapes")
    return ViTSpec.parse(fields, where=where)


def _one_type(tensors: dict[str, Stored], *, promotes: bool) -> dict[str, Stored]:
    """Files of mixed types in the one that holds all their values: CLIP's have halves beside floats."""
    types = {tensor.dtype for tensor in tensors.values()}
    if len(types) < 2 and not (promotes and types <= {"F16", "BF16"}):
        return tensors
    wide = "F64" if "F64" in types else "F32"
    return {name: tensor.widened(wide) for name, tensor in tensors.items()}
