"""The spec that the shapes of our tensors tell; what they cannot tell is asked for, never guessed.

A block's tensor speaks by the shape that most blocks give it, so that one damaged tensor is found out by the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.weights.dialect import Shapes

RANKS = {"weight": 2, "bias": 1, "gamma": 1}  # of a block's tensors; norms have weights of rank 1
NEEDED = ("patch_embed.proj.weight", "blocks.{i}.attn.qkv.weight", "blocks.{i}.mlp.fc1.weight", "blocks.{i}.mlp.fc2.weight")
TRAINING = ("dropout", "emb_dropout", "drop_path")  # fields that no file holds and inference does not read
Pair = tuple[int, int]


def pair(value: Any) -> Pair:
    """Height and width; a single number is both."""
    height, width = (value, value) if isinstance(value, int) else value
    return height, width


def from_shapes(shapes: Shapes, *, where: object, named: Any) -> dict[str, Any]:
    """Every field that shapes alone settle, under our names, and `inner`, the width of attention."""
    found = typical(shapes)
    for name in NEEDED:
        if name not in found:
            raise RefusedContent(f"has no usable tensor {named(name.replace('{i}', '0'))!r}", where=where)
    if len(found["patch_embed.proj.weight"]) != 4:
        kernel = list(found["patch_embed.proj.weight"])
        raise RefusedContent(
            f"{named('patch_embed.proj.weight')!r} has shape {kernel}, which is no patch projection", where=where
        )
    for name in ("reg_token", "pos_embed"):
        if name in found and len(found[name]) != 3:
            raise RefusedContent(f"{named(name)!r} has shape {list(found[name])}; three axes are wanted", where=where)
    dim, channels, p, q = found["patch_embed.proj.weight"]
    registers = found["reg_token"][1] if "reg_token" in found else 0
    class_token = "cls_token" in found
    block = "blocks.{i}"
    norm = "before_pool" if "norm.weight" in found else "after_pool" if "fc_norm.weight" in found else "none"
    after_pool = found.get("pre_logits.weight", found.get("head.weight", (0, dim)))
    if "attn_pool.latent" in found or "attn_pool.q.weight" in found:
        pool = "map"
    elif class_token and after_pool[-1] == 2 * dim:
        pool = "cls+mean"
    else:
        pool = "mean" if norm == "after_pool" or not class_token else "cls"
    out, head = f"{block}.attn.proj.weight" in found, found.get(f"{block}.attn.q_norm.weight")
    mlp_dim = found[f"{block}.mlp.fc2.weight"][1]
    return {
        "patch_size": (p, q), "channels": channels, "dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "inner": found[f"{block}.attn.qkv.weight"][0] // 3, "mlp_dim": mlp_dim,
        "num_classes": found["head.weight"][0] if "head.weight" in found else 0,
        "class_token": class_token, "dist_token": "dist_token" in found, "registers": registers,
        "pos": "learned" if "pos_embed" in found else "none", "pos_covers": "patches",
        "patch_bias": "patch_embed.proj.bias" in found, "patch_norms": "patch_embed.pre_norm.weight" in found,
        "pre_norm": "norm_pre.weight" in found,
        "mlp": "swiglu" if found[f"{block}.mlp.fc1.weight"][0] == 2 * mlp_dim else "plain",
        "qkv_bias": "qv" if f"{block}.attn.q_bias" in found else f"{block}.attn.qkv.bias" in found,
        **({"dim_head": head[0]} if head else {}), "qk_norm": head is not None, "attn_out": out,
        "proj_bias": out and f"{block}.attn.proj.bias" in found, "mlp_bias": f"{block}.mlp.fc1.bias" in found,
        "layer_scale": f"{block}.ls1.gamma" in found or f"{block}.ls2.gamma" in found,
        "final_norm": norm, "pool": pool,
        "representation": found["pre_logits.weight"][0] if "pre_logits.weight" in found else 0,
        "head_bias": "head.bias" in found or "head.weight" not in found,
        **dict.fromkeys(TRAINING, 0.0),
    }  # fmt: skip


def typical(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes by name, those of blocks under `blocks.{i}`: the one that most of them have, of the usual rank."""
    seen: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        seen.setdefault(re.sub(r"^blocks\.\d+\.", "blocks.{i}.", name), []).append(shape)
    found = {}
    for name, given in seen.items():
        rank = 1 if "norm" in name else RANKS.get(name.rsplit(".", 1)[-1])
        usual = [shape for shape in given if "{i}" not in name or rank is None or len(shape) == rank]
        if usual:
            found[name] = Counter(usual).most_common(1)[0][0]
    return found


def prefixes(fields: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, int]:
    """How many entries a position table has before those of the patches, by what a dialect's tables may cover."""
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
    named: Callable[[str], str],
) -> tuple[str, Pair]:
    """What a table of positions covers, and its grid: the stated one, a square, or that of the stated image.

    Raises InputError for a table that is none of them, or that could be two.
    """
    if grid is not None:
        fits = [name for name, prefix in covers.items() if length - prefix == grid[0] * grid[1]]
        if length == grid[0] * grid[1] + max(covers.values()) + 1:
            raise RefusedContent(
                f"{length} positions are one more than there are tokens: is {named('cls_token')!r} missing?", where=where
            )
        if not fits:
            raise InputError(f"{length} positions do not make a grid of {grid[0]}x{grid[1]}", where=where)
        return fits[-1], grid
    square = [name for name, prefix in covers.items() if length > prefix and math.isqrt(length - prefix) ** 2 == length - prefix]
    asked = None if image is None else (image[0] // patch[0], image[1] // patch[1])
    fits = [] if asked is None else [name for name, prefix in covers.items() if length - prefix == asked[0] * asked[1]]
    if square:
        side = math.isqrt(length - covers[square[-1]])
        if asked is not None and fits and fits[-1] != square[-1]:
            return fits[-1], asked
        if asked is not None and fits and asked != (side, side):
            either = f"{side}x{side} or, as the image asks, {asked[0]}x{asked[1]}"
            raise InputError(f"{length} positions may be a grid of {either}", where=where, hint="state it: grid=ROWS,COLUMNS")
        return square[-1], (side, side)
    if asked is not None and fits:
        return fits[-1], asked
    if math.isqrt(length - 1) ** 2 == length - 1:
        raise RefusedContent(
            f"{length} positions are a square grid and one more: is {named('cls_token')!r} missing?", where=where,
            hint="if there is none, state grid=ROWS,COLUMNS",
        )  # fmt: skip
    if image is not None:
        hint = "state the grid they are of: grid=ROWS,COLUMNS"
        raise InputError(f"{length} positions do not make an image of {image[0]}x{image[1]}", where=where, hint=hint)
    hint = "state it: grid=ROWS,COLUMNS, or image_size=HEIGHT,WIDTH"
    raise InputError(f"{length} positions are no square grid", where=where, hint=hint)


def heads_of(fields: Mapping[str, Any]) -> tuple[int, str] | None:
    """The head count: of a norm per head, or that of the variants of the same width, depth and MLP, if all of them agree."""
    if "dim_head" in fields:
        return fields["inner"] // fields["dim_head"], "shapes"
    from vit_zoo.registry.catalog import variants

    alike = {
        (variant.fields["heads"], variant.fields["dim_head"])
        for variant in variants().values()
        if all(variant.fields.get(name) == fields[name] for name in ("dim", "depth", "mlp_dim"))
        and variant.fields["heads"] * variant.fields["dim_head"] == fields["inner"]
    }
    return (next(iter(alike))[0], "the zoo's variants of this size") if len(alike) == 1 else None


def pool_tokens(pool: str, *, prefixed: bool) -> str:
    """What mean and attention pooling look at unless somebody says more: the patches alone."""
    return "patches" if pool in ("mean", "map", "cls+mean") and prefixed else "all"
