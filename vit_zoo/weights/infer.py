"""Inference of the spec from the shapes of our tensors. Fields that shapes do not settle are left out, never guessed.

For the tensors of blocks, the shape that most blocks have counts, so that one damaged tensor shows by the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent, fact
from vit_zoo.model.spec import TRAINING
from vit_zoo.weights.dialect import Shapes

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

# dialects in which the zoo lists the published weights of a source, each size with one number of heads
PUBLISHERS = ("deit3", "dinov2", "dinov3", "mae", "timm", "torchvision")
# widths and depths that several sources have published under the names of one dialect, with different numbers of heads:
# facebookresearch/moco-v3, vits.py, whose ViT-S has 12, and wangsr126/MAE-Lite, whose ViT-Tiny has 12
AMBIGUOUS = {"timm": {(384, 12), (192, 12)}}
RANKS = {"weight": 2, "bias": 1, "gamma": 1}  # number of axes of a block's tensors; the weights of norms have one
# the same of tensors outside the blocks that fields are taken from
AXES = {"patch_embed.proj.weight": 4, "reg_token": 3, "pos_embed": 3, "pre_logits.weight": 2, "head.weight": 2}
NEEDED = ("patch_embed.proj.weight", "blocks.{i}.attn.qkv.weight", "blocks.{i}.mlp.fc1.weight", "blocks.{i}.mlp.fc2.weight")
# tables of relative biases, by the value of `relative_bias`
RELATIVE = {
    "blocks": "blocks.{i}.attn.relative_position_bias_table", "shared": "rel_pos_bias.relative_position_bias_table",
}  # fmt: skip
GRID = fact("grid", "ROWS,COLUMNS")
Pair = tuple[int, int]


def pair(value: Any) -> Pair:
    """Height and width; a single number is both."""
    height, width = (value, value) if isinstance(value, int) else value
    return height, width


def from_shapes(shapes: Shapes, *, where: object, key_of: Callable[[str], str]) -> dict[str, Any]:
    """All fields of the spec that shapes alone settle, and `inner`, the width of attention.

    `key_of` gives the file's own name of one of our tensors. Raises RefusedContent for tensors that cannot be a ViT's.
    """
    usual = usual_shapes(shapes)
    for name in NEEDED:
        if name not in usual:
            raise RefusedContent(f"has no usable tensor {key_of(name.replace('{i}', '0'))!r}", where=where)
    for name, axes in AXES.items():
        if name in usual and len(usual[name]) != axes:
            raise RefusedContent(f"{key_of(name)!r} has shape {list(usual[name])}; expected {axes} axes", where=where)
    dim, channels, p, q = usual["patch_embed.proj.weight"]
    registers = usual["reg_token"][1] if "reg_token" in usual else 0
    class_token = "cls_token" in usual
    block = "blocks.{i}"
    norm = "before_pool" if "norm.weight" in usual else "after_pool" if "fc_norm.weight" in usual else "none"
    after_pool = usual.get("pre_logits.weight", usual.get("head.weight", (0, dim)))
    if "attn_pool.latent" in usual or "attn_pool.q.weight" in usual:
        pool = "map"
    elif class_token and after_pool[-1] == 2 * dim:
        pool = "cls+mean"
    else:
        pool = "mean" if norm == "after_pool" or not class_token else "cls"
    out, head = f"{block}.attn.proj.weight" in usual, usual.get(f"{block}.attn.q_norm.weight")
    mlp_dim = usual[f"{block}.mlp.fc2.weight"][1]
    pool_mlp_dim = usual.get("attn_pool.mlp.fc1.weight", (mlp_dim,))[0]
    return {
        "patch_size": (p, q), "channels": channels, "dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "inner": usual[f"{block}.attn.qkv.weight"][0] // 3, "mlp_dim": mlp_dim,
        "num_classes": usual["head.weight"][0] if "head.weight" in usual else 0,
        "class_token": class_token, "dist_token": "dist_token" in usual, "registers": registers,
        "pos": "learned" if "pos_embed" in usual else "none", "pos_covers": "patches",
        "relative_bias": next((name for name, table in RELATIVE.items() if table in usual), "none"),
        "patch_bias": "patch_embed.proj.bias" in usual, "pre_norm": "norm_pre.weight" in usual,
        "patch_norms": "after" if "patch_embed.norm.weight" in usual else "patch_embed.pre_norm.weight" in usual,
        "mlp": "swiglu" if usual[f"{block}.mlp.fc1.weight"][0] == 2 * mlp_dim else "plain",
        "qkv_bias": "qv" if f"{block}.attn.q_bias" in usual else f"{block}.attn.qkv.bias" in usual,
        **({"dim_head": head[0]} if head else {}), "qk_norm": head is not None, "attn_out": out,
        "attn_norm": f"{block}.attn.norm.weight" in usual, "mlp_norm": f"{block}.mlp.norm.weight" in usual,
        "proj_bias": out and f"{block}.attn.proj.bias" in usual, "mlp_bias": f"{block}.mlp.fc1.bias" in usual,
        "layer_scale": f"{block}.ls1.gamma" in usual or f"{block}.ls2.gamma" in usual,
        "final_norm": norm, "pool": pool, "pool_mlp_dim": 0 if pool_mlp_dim == mlp_dim else pool_mlp_dim,
        "representation": usual["pre_logits.weight"][0] if "pre_logits.weight" in usual else 0,
        "projection": 0, "cosine_head": False,  # no library has them
        "head_bias": "head.bias" in usual or "head.weight" not in usual,
        **dict.fromkeys(TRAINING, 0.0),
    }  # fmt: skip


def usual_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes by name, with all blocks as one under `blocks.{i}`: the most common shape, of the usual number of axes."""
    seen: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        seen.setdefault(re.sub(r"^blocks\.\d+\.", "blocks.{i}.", name), []).append(shape)
    usual = {}
    for name, candidates in seen.items():
        rank = 1 if "norm" in name else RANKS.get(name.rsplit(".", 1)[-1])
        fitting = [shape for shape in candidates if "{i}" not in name or rank is None or len(shape) == rank]
        if fitting:
            usual[name] = Counter(fitting).most_common(1)[0][0]
    return usual


def prefixes(fields: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, int]:
    """The possible values of `pos_covers`, with the number of positions that precede those of the patches for each.

    `allowed` are the values that tables of the dialect may have.
    """
    every = fields["class_token"] + fields["dist_token"] + fields["registers"]
    if not every:
        return {"patches": 0}
    covers = {"patches": 0, "all": every}
    if fields["class_token"] and fields["registers"] and not fields["dist_token"]:
        covers["class"] = 1
    return {name: covers[name] for name in covers if name in allowed}


def stored_grid(
    length: int,
    covers: Mapping[str, int],
    patch: Pair,
    *,
    grid: Pair | None,
    image: Pair | None,
    where: object,
    key_of: Callable[[str], str],
) -> tuple[str, Pair]:
    """The value of `pos_covers` and the grid of a table of `length` positions.

    The grid is the stated one; else a square; else that of the stated image. `covers` is the result of `prefixes`. Raises
    InputError for a table that fits none of them or two, RefusedContent where the class token seems to be missing.
    """
    if grid is not None:
        fits = [name for name, prefix in covers.items() if length - prefix == grid[0] * grid[1]]
        if length == grid[0] * grid[1] + max(covers.values()) + 1:
            cause = f"{length} positions are one more than there are tokens: is {key_of('cls_token')!r} missing?"
            raise RefusedContent(cause, where=where)
        if not fits:
            raise InputError(f"{length} positions do not fit a grid of {grid[0]}x{grid[1]}", where=where)
        return fits[-1], grid
    square = [name for name, prefix in covers.items() if length > prefix and math.isqrt(length - prefix) ** 2 == length - prefix]
    of_image = None if image is None else (image[0] // patch[0], image[1] // patch[1])
    fits = [] if of_image is None else [name for name, n in covers.items() if length - n == of_image[0] * of_image[1]]
    if square:
        side = math.isqrt(length - covers[square[-1]])
        if of_image is not None and fits and fits[-1] != square[-1]:
            return fits[-1], of_image
        if of_image is not None and fits and of_image != (side, side):
            cause = f"{length} positions fit a grid of {side}x{side} and, by image_size, one of {of_image[0]}x{of_image[1]}"
            raise InputError(cause, where=where, hint=f"state it: {GRID}", options=[GRID])
        return square[-1], (side, side)
    if of_image is not None and fits:
        return fits[-1], of_image
    if math.isqrt(length - 1) ** 2 == length - 1:
        raise RefusedContent(
            f"{length} positions are a square grid and one more: is {key_of('cls_token')!r} missing?", where=where,
            hint=f"if the model has none, state {GRID}", options=[GRID],
        )  # fmt: skip
    if image is not None:
        cause = f"{length} positions do not fit an image of {image[0]}x{image[1]}"
        raise InputError(cause, where=where, hint=f"state the grid of the positions: {GRID}", options=[GRID])
    size = fact("image_size", "HEIGHT,WIDTH")
    cause = f"{length} positions do not form a square grid"
    raise InputError(cause, where=where, hint=f"state it: {GRID}, or {size}", options=[GRID, size])


def grid_of_biases(shapes: Shapes, stated: Pair | None, *, where: object, key_of: Callable[[str], str]) -> Pair | None:
    """The grid that the tables of relative biases are for: the stated one, else a square; None if there are no tables.

    Raises InputError for a table that fits neither.
    """
    usual = usual_shapes(shapes)
    name = next((table for table in RELATIVE.values() if table in usual), None)
    if name is None or not usual[name]:
        return None
    distances = usual[name][0] - 3  # without the three of the class token
    if stated is None:
        side = math.isqrt(max(distances, 0))
        stated = ((side + 1) // 2,) * 2
    if distances != (2 * stated[0] - 1) * (2 * stated[1] - 1):
        key = key_of(name.replace("{i}", "0"))
        cause = f"{key!r} has {usual[name][0]} rows, which do not fit a grid of {stated[0]}x{stated[1]}"
        raise InputError(cause, where=where, hint=f"state it: {GRID}", options=[GRID])
    return stated


def heads_of(fields: Mapping[str, Any], dialect: str, positions: int) -> tuple[int, str] | None:
    """The number of heads and its origin; None if it cannot be inferred.

    It follows from the width of a head, or from the published weights of the dialect with all the sizes that the file shows, the
    number of `positions` included, unless the sources of such weights differ.
    """
    if fields.get("dim_head"):
        return fields["inner"] // fields["dim_head"], "shapes"
    source = dialect.removeprefix("open_clip-").removesuffix("-swiglu")  # open_clip has towers of timm
    if source not in PUBLISHERS or (fields["dim"], fields["depth"]) in AMBIGUOUS.get(source, ()):
        return None
    sizes = (*(fields[name] for name in ("dim", "depth", "mlp_dim", "inner")), fields["patch_size"], positions)
    published = {spec.heads for spec in _published(source) if _sizes(spec) == sizes}
    return (published.pop(), f"convention of {dialect}") if len(published) == 1 else None


def _published(dialect: str) -> list[ViTSpec]:
    """The specs of the weights that the zoo lists in a dialect."""
    from vit_zoo.registry.catalog import variants
    from vit_zoo.registry.configs import config_of
    from vit_zoo.registry.lookup import tags_of

    tags = ((variant, tag) for name, variant in variants().items() for tag in tags_of(name).values() if tag.dialect == dialect)
    return [config_of(variant, tag).spec for variant, tag in tags]


def _sizes(spec: ViTSpec) -> tuple[Any, ...]:
    positions = spec.shapes()["pos_embed"][1] if spec.learned_pos else 0
    return (spec.dim, spec.depth, spec.mlp_dim, spec.heads * spec.dim_head, spec.patch_size, positions)


def pool_tokens(pool: str, *, prefixed: bool) -> str:
    """The tokens that are pooled where no source states them: for mean and attention pooling, only the patches."""
    return "patches" if pool in ("mean", "map", "cls+mean") and prefixed else "all"
