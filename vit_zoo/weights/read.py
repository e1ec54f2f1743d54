"""Reading of a checkpoint: from a library's tensors to a spec and our tensors.

Facts are fields of the spec, and two of the file alone (`grid`, `resize`). They come from the shapes of the tensors, the
conventions of the dialect, the sidecar of the file, and the user, each over the one before. A config that contradicts the
shapes is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, RefusedContent, did_you_mean, fact
from vit_zoo.files import Stored
from vit_zoo.model.resize_recipes import UNSTATED, recipe_named
from vit_zoo.model.spec import TRAINING, ViTSpec
from vit_zoo.weights.detect import detect
from vit_zoo.weights.dialect import Dialect, Shapes
from vit_zoo.weights.infer import from_shapes, grid_of_biases, heads_of, pair, pool_tokens, prefixes, stored_grid
from vit_zoo.weights.resize import resize_kernel, resize_positions, resize_relative_biases
from vit_zoo.weights.translate import Translation, check_needs, check_tensors, to_ours

# A config that names an architecture states its activation only for the MLP that this architecture has.
ACT_OF_PLAIN_MLP = "act_of_plain_mlp"
# facts of the file, not of the spec: the grid of its positions, the recipe to resize them by, and what stands before the names
SOURCE_FACTS = ("grid", "resize", "prefix")
# what shapes do not show and few models have otherwise: a dialect or a config states another value
USUAL = {"rope": "dinov3", "rope_grid": None, "norm": "layer", "block_norm": "pre", "pool_heads": 0}
# the facts that shapes do not show for every file, with examples of their values
NOT_IN_SHAPES = {
    "heads": "N", "norm_eps": "1e-5, say", "act": "gelu, say", "pool": "cls or mean", "final_norm": "before_pool or after_pool",
    "image_size": "HEIGHT or HEIGHT,WIDTH", "pos": "learned, say", "block_norm": "pre or post", "pool_heads": "N",
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A checkpoint after reading.

    * `tensors`: under our names.
    * `origin`: where each field of the spec comes from.
    * `unwanted`: keys of known tensors that are not part of the model.
    * `recipe`: the recipe for resizing it.
    """

    dialect: Dialect
    tensors: dict[str, Stored]
    spec: ViTSpec
    origin: dict[str, str]
    unwanted: tuple[str, ...] = ()
    recipe: str = "timm"


def read(
    tensors: Mapping[str, Stored],
    facts: Mapping[str, Any],
    *,
    dialect: Dialect | None = None,
    config: Mapping[str, Any] | None = None,
    where: object,
) -> Reading:
    """Read the tensors of a checkpoint: rename them, infer the spec, account for every tensor, resize for another image size.

    `facts` are those of the user, `config` those of the sidecar; `dialect` is detected unless it is given. Raises InputError
    for a fact that no source states, RefusedContent for tensors that do not fit together.
    """
    check_facts(facts, where=where)
    config = dict(config or {})
    stated_recipe = config.pop("resize", None)
    dialect = dialect or detect(tensors, where=where)
    translation = to_ours(dialect, tensors, {**config, **facts}, where=where)
    key_of = translation.opened.key_for_ours
    check_needs(dialect, translation, {**config, **facts}, where=where)
    # vit-pytorch stores an absent class token as an empty tensor
    ours = {name: tensor for name, tensor in translation.tensors.items() if 0 not in tensor.shape}
    ours = _in_one_type(ours, in_float32=dialect.computes_in_float32)
    if dialect.norm_place_is_stated and {**config, **facts}.get("final_norm") == "before_pool":
        ours = {re.sub(r"^fc_norm\.", "norm.", name): tensor for name, tensor in ours.items()}
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    shown = from_shapes(shapes, where=where, key_of=key_of)
    conventions = dialect.conventions_of(shapes)
    act = config.pop(ACT_OF_PLAIN_MLP, None)
    if act is not None and {**shown, **conventions}["mlp"] == "plain":
        config.setdefault("act", act)
    positions = shapes["pos_embed"][1] if len(shapes.get("pos_embed", ())) == 3 else 0
    fields, origin = _fields(dialect, translation, shown, conventions, config, facts, positions, where=where)
    for name in _undecided(dialect, shapes, fields, {*config, *facts}):
        fields.pop(name, None)
    if "pos_embed" in shapes:
        grid = translation.grid
        if grid is not None and pair(facts.get("grid", grid)) != grid:
            raise InputError(f"positions have a grid of {grid[0]}x{grid[1]}", where=where)
        known = facts if grid is None else {**facts, "grid": grid}
        _set_positions(ours, fields, origin, config, known, dialect.position_covers, key_of, where=where)
    elif fields["relative_bias"] != "none":
        p, q = ours["patch_embed.proj.weight"].shape[2:]
        sides = pair(facts["grid"]) if "grid" in facts else None
        if sides is None and "image_size" in config:
            height, width = pair(config["image_size"])
            sides = height // p, width // q
        grid = grid_of_biases(shapes, sides, where=where, key_of=key_of)
        assert grid is not None
        fields["image_size"] = (grid[0] * p, grid[1] * q)
        origin.setdefault("image_size", "shapes")
    elif "grid" in facts:
        raise InputError("grid does not apply: the file has no position table", where=where)
    unknown = [fact for fact in NOT_IN_SHAPES if fact not in fields]
    if unknown:
        raise _missing_facts(unknown, dialect, fields, origin, where=where)
    fields["patch_size"] = ours["patch_embed.proj.weight"].shape[2:]  # of the file; the one that is stated comes by resizing
    spec = _spec(fields, origin, where=where)
    check_tensors(ours, spec.shapes(), where=where, key_of=key_of)
    recipe = stated_recipe or _recipe(
        dialect, spec, other_patches=pair(facts.get("patch_size", spec.patch_size)) != spec.patch_size
    )
    ours, resized_spec = resized({name: ours[name] for name in spec.shapes()}, spec, facts, recipe, where=where)
    recipe = facts.get("resize", recipe)
    return Reading(dialect, ours, resized_spec, {f: origin[f] for f in ViTSpec.model_fields}, translation.unwanted, recipe)


def _undecided(dialect: Dialect, shapes: Shapes, fields: Mapping[str, Any], stated: set[str]) -> list[str]:
    """The fields that files of a dialect with these shapes do not have in common, and that are not stated."""
    conventions = dialect.conventions_by_shapes(shapes)
    undecided = [name for name, value in conventions.items() if value is None and name != "act" and name not in stated]
    if undecided:
        return undecided
    return ["final_norm"] if dialect.norm_place_is_stated and fields["pool"] == "mean" and "final_norm" not in stated else []


def _recipe(dialect: Dialect, spec: ViTSpec, *, other_patches: bool) -> str:
    """The recipe by which a dialect resizes a model, or `UNSTATED`; `other_patches`: its patches are resized too."""
    if other_patches and dialect.resize_with_patches is not None:
        return dialect.resize_with_patches
    if dialect.resize_unstated(spec):
        return UNSTATED
    return dialect.resize_with_registers if dialect.resize_with_registers and spec.registers else dialect.resize


def _missing_facts(
    unknown: list[str], dialect: Dialect, fields: dict[str, Any], origin: dict[str, str], *, where: object
) -> InputError:
    """The error about facts that no source states; `details` holds what is known."""
    same = "; its shapes are the same for any number of heads" if unknown[0] == "heads" else ""
    same += "; models that rotate positions have the same tensors" if "pos" in unknown else ""
    known = {name: value for name, value in fields.items() if name in ViTSpec.model_fields and name not in unknown}
    sources = {name: origin[name] for name in known if name in origin}
    details = {"dialect": dialect.name, "known": known, "origin": sources, "unknown": unknown}
    cause = f"cannot infer {', '.join(unknown)} from the file{same}"
    options = [fact(name, NOT_IN_SHAPES[name]) for name in unknown]
    hint = f"state {'it' if len(options) == 1 else 'them'}: {' and '.join(map(str, options))}"
    return InputError(cause, where=where, hint=hint, options=options, details=details)


def resized(
    tensors: dict[str, Stored], spec: ViTSpec, facts: Mapping[str, Any], recipe: str, *, where: object
) -> tuple[dict[str, Stored], ViTSpec]:
    """A model for the image and patch size in `facts`: positions and patch projection are resized by a recipe.

    Raises InputError for sizes that do not fit together, and for a recipe where nothing is resized.
    """
    patch = pair(facts.get("patch_size", spec.patch_size))
    image = pair(facts.get("image_size", spec.image_size))
    if image[0] % patch[0] or image[1] % patch[1]:
        raise InputError(f"patch_size {patch[0]}x{patch[1]} does not divide image_size {image[0]}x{image[1]}", where=where)
    if (image, patch) == (spec.image_size, spec.patch_size):
        if "resize" in facts:
            raise InputError(f"nothing is resized: the model takes images of {image[0]}x{image[1]} already", where=where)
        return tensors, spec
    recipe = facts.get("resize", recipe)
    recipe_named(recipe, where=where)
    new = spec.replace(image_size=image, patch_size=patch)
    resized_tensors = dict(tensors)
    if patch != spec.patch_size:
        if spec.patch_norms:
            cause = "cannot change the patch_size of a model with patch_norms: its norm has a weight for each value of a patch"
            raise InputError(cause, where=where)
        resized_tensors["patch_embed.proj.weight"] = resize_kernel(tensors["patch_embed.proj.weight"], patch, recipe)
    for name in (name for name in tensors if name.endswith("relative_position_bias_table")):
        resized_tensors[name] = resize_relative_biases(tensors[name], spec.grid, new.grid, recipe)
    if spec.learned_pos:
        prefix = tensors["pos_embed"].shape[1] - spec.patch_tokens
        resized_tensors["pos_embed"] = resize_positions(tensors["pos_embed"], prefix, spec.grid, new.grid, recipe)
    return resized_tensors, new


def check_facts(facts: Mapping[str, Any], *, where: object) -> None:
    """Raise InputError for a fact or a recipe that does not exist."""
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
    conventions: Mapping[str, Any],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    positions: int,
    *,
    where: object,
) -> tuple[dict[str, Any], dict[str, str]]:
    """All fields except those of the image, and where each comes from; `shapes` are the fields that shapes settle."""
    stated = {name: value for name, value in facts.items() if name not in (*SOURCE_FACTS, "patch_size")}
    # with learned positions, the image size of the config is the grid of the table: see `_set_positions`
    in_config = {name: value for name, value in config.items() if name != "image_size" or shapes["pos"] != "learned"}
    fields: dict[str, Any] = {**USUAL, **shapes, **translation.facts, **conventions}
    convention = f"convention of {dialect.name}"
    origin = {
        **dict.fromkeys([*shapes, *translation.facts], "shapes"),
        **dict.fromkeys(("pool", "pool_tokens", *USUAL, *conventions), convention),
        **dict.fromkeys(TRAINING, "not stored: training only"),
    }
    for name, value in in_config.items():
        if name in shapes and origin.get(name) == "shapes" and name != "patch_size" and not _fits(name, value, shapes[name]):
            raise RefusedContent(f"its config has {name} = {value}, its tensors have {shapes[name]}", where=where)
        if origin.get(name) != "shapes" or name == "pos":
            fields[name], origin[name] = value, "its config"
    if fields["mlp"] == "swiglu" and "act" not in in_config:
        fields["act"], origin["act"] = "silu", "what SwiGLU means"
    if "heads" not in {**in_config, **facts}:
        if dialect.head_width is not None and fields["inner"] % dialect.head_width == 0:
            fields["heads"], origin["heads"] = fields["inner"] // dialect.head_width, convention
        elif (heads := heads_of(fields, dialect.name, positions)) is not None:
            fields["heads"], origin["heads"] = heads
    fields.update(stated)
    origin.update({name: "stated" for name in facts if name not in SOURCE_FACTS})
    if "pool_tokens" not in {**facts, **conventions, **in_config}:
        fields["pool_tokens"] = pool_tokens(fields["pool"], prefixed=bool(fields["class_token"] or fields["registers"]))
    return fields, origin


def _fits(name: str, stated: Any, shown: Any) -> bool:
    """Whether a stated value is one that tensors with the value `shown` can have: they do not show computed positions."""
    if name == "pos":
        return bool(("learned" in str(stated)) == (shown == "learned"))
    return bool(stated == shown)


def _set_positions(
    ours: dict[str, Stored], fields: dict[str, Any], origin: dict[str, str], config: Mapping[str, Any], facts: Mapping[str, Any],
    allowed: tuple[str, ...], key_of: Callable[[str], str], *, where: object,
) -> None:  # fmt: skip
    """Set `pos_covers` and `image_size` from the stored positions."""
    length, (p, q) = ours["pos_embed"].shape[1], pair(ours["patch_embed.proj.weight"].shape[2:])
    image = pair(facts["image_size"]) if "image_size" in facts else None
    grid = pair(facts["grid"]) if "grid" in facts else None
    if grid is None and "image_size" in config:
        height, width = pair(config["image_size"])
        grid = (height // p, width // q)
    before = prefixes(fields, allowed)
    covers, (rows, columns) = stored_grid(length, before, (p, q), grid=grid, image=image, where=where, key_of=key_of)
    fields["pos_covers"], fields["image_size"] = covers, (rows * p, columns * q)
    if image is None:
        origin["image_size"] = "stated" if "grid" in facts else "its config" if "image_size" in config else "shapes"


def _spec(fields: dict[str, Any], origin: dict[str, str], *, where: object) -> ViTSpec:
    """The spec of the fields, with `inner`, the width of attention, as `dim_head`."""
    inner = fields.pop("inner")
    origin.pop("inner")
    heads = fields["heads"]
    if not inner or not heads or inner % heads:
        raise InputError(f"{heads} heads do not divide the attention width {inner}", where=where)
    fields.setdefault("dim_head", inner // heads)
    origin.setdefault("dim_head", "shapes")
    return ViTSpec.parse(fields, where=where)


def _in_one_type(tensors: dict[str, Stored], *, in_float32: bool) -> dict[str, Stored]:
    """Tensors of mixed types (CLIP's files hold half and float) in the one type that represents all their values.

    `in_float32`: half-precision tensors become float32 even where all have the same type.
    """
    types = {tensor.dtype for tensor in tensors.values()}
    if len(types) < 2 and not (in_float32 and types <= {"F16", "BF16"}):
        return tensors
    wide = "F64" if "F64" in types else "F32"
    return {name: tensor.widened(wide) for name, tensor in tensors.items()}
