"""Which dialect a set of tensors speaks, and the spec that their shapes tell; what they cannot tell is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.vit_spec import ViTSpec, did_you_mean
from vit_zoo.weights.rules import Dialect, Shapes, check_needs, check_tensors, to_ours
from vit_zoo.weights.timm import TIMM, VITZOO
from vit_zoo.weights.timm_eva import TIMM_EVA, TIMM_EVA_SWIGLU
from vit_zoo.weights.torchvision import TORCHVISION
from vit_zoo.weights.vit_pytorch import SIMPLE_VIT, VIT_PYTORCH

DIALECTS = (VITZOO, TIMM_EVA_SWIGLU, TIMM_EVA, TIMM, TORCHVISION, SIMPLE_VIT, VIT_PYTORCH)


@dataclass(frozen=True)
class Reading:
    """A checkpoint understood: its dialect, its tensors under our names, the spec, and where each field came from."""

    dialect: Dialect
    tensors: dict[str, Stored]
    spec: ViTSpec
    origin: dict[str, str]


def detect(keys: Mapping[str, Any], *, where: object) -> Dialect:
    """The dialect of a set of keys. Raises RefusedContent if none of ours."""
    for dialect in DIALECTS:
        if dialect.matches(keys):
            return dialect
    names = ", ".join(dialect.name for dialect in DIALECTS)
    first = f", first {next(iter(keys))!r}" if keys else ""
    raise RefusedContent(f"{len(keys)} tensors{first}: not a ViT of a known dialect ({names})", where=where)


def read(tensors: Mapping[str, Stored], facts: Mapping[str, Any], *, where: object) -> Reading:
    """Detect the dialect, rename, infer the spec, account for every tensor.

    Raises InputError naming a fact that nobody states, RefusedContent for tensors that do not fit together.
    """
    strange = [name for name in facts if name not in ViTSpec.model_fields]
    if strange:
        raise InputError(f"unknown fact '{strange[0]}'{did_you_mean(strange[0], list(ViTSpec.model_fields))}", where=where)
    dialect = detect(tensors, where=where)
    ours = to_ours(dialect, tensors, facts, where=where)
    check_needs(dialect, ours, facts, where=where)
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    ours = {name: tensor for name, tensor in ours.items() if 0 not in tensor.shape}  # vit-pytorch's absent class token
    found = _from_shapes({n: s for n, s in shapes.items() if n in ours}, facts, where=where)
    assumed = f"convention of {dialect.name}"
    origin = {**dict.fromkeys(found, "shapes"), **dict.fromkeys(("pool", "pool_tokens", *dialect.conventions), assumed)}
    origin.update(dict.fromkeys(("dropout", "emb_dropout", "drop_path"), "not stored: training only"))
    fields = {**found, **dialect.conventions}
    if fields["mlp"] == "swiglu":
        fields["act"], origin["act"] = "silu", "what SwiGLU means"
    if "heads" not in facts:
        heads, reason = _heads(fields, where=where)
        fields["heads"] = heads
        origin["heads"] = reason
    fields.update(facts)
    if "pool" in facts and "pool_tokens" not in facts:  # every source but vit-pytorch, which tells, pools patches alone
        fields["pool_tokens"] = _pool_tokens(facts["pool"], prefixed=bool(fields["class_token"] or fields["registers"]))
    origin.update(dict.fromkeys(facts, "stated"))
    unknown = [name for name in ("norm_eps", "act") if name not in fields]
    if unknown:
        hint = f"state it: {unknown[0]}={'1e-5' if unknown[0] == 'norm_eps' else 'gelu'}, say"
        raise InputError(f"the file does not tell {unknown[0]}", where=where, hint=hint)
    inner = fields.pop("inner")
    if inner % fields["heads"] != 0:
        raise InputError(f"{fields['heads']} heads do not divide an attention of {inner}", where=where)
    fields.setdefault("dim_head", inner // fields["heads"])
    origin.pop("inner")
    origin.setdefault("dim_head", "shapes")
    spec = ViTSpec.parse(fields, where=where)
    check_tensors(ours, spec.shapes(), where=where)
    return Reading(dialect, {name: ours[name] for name in spec.shapes()}, spec, {f: origin[f] for f in ViTSpec.model_fields})


def _from_shapes(shapes: Shapes, facts: Mapping[str, Any], *, where: object) -> dict[str, Any]:
    """Every field that shapes settle, under our names."""
    block = "blocks.0"
    needed = ("patch_embed.proj.weight", f"{block}.attn.qkv.weight", f"{block}.mlp.fc1.weight", f"{block}.mlp.fc2.weight")
    for name in needed:
        if name not in shapes or len(shapes[name]) < 2:
            raise RefusedContent(f"has no usable tensor {name!r}", where=where)
    if len(shapes["patch_embed.proj.weight"]) != 4:
        raise RefusedContent(f"patch projection of shape {list(shapes['patch_embed.proj.weight'])}", where=where)
    dim, channels, p, q = shapes["patch_embed.proj.weight"]
    registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
    class_token, dist_token = "cls_token" in shapes, "dist_token" in shapes
    pos, covers, image_size = "none", "patches", facts.get("image_size")
    if "pos_embed" in shapes:
        pos = "learned"
        prefixes = {"patches": 0, "all": class_token + dist_token + registers}
        if prefixes["all"] == 0:
            del prefixes["all"]
        elif class_token and registers and not dist_token:
            prefixes["class"] = 1
        covers, image_size = _positions(shapes["pos_embed"][1], prefixes, (p, q), image_size, where=where)
    if image_size is None:
        raise InputError("the file does not tell image_size", where=where, hint="state it: image_size=HEIGHT or HEIGHT,WIDTH")
    norm = "before_pool" if "norm.weight" in shapes else "after_pool" if "fc_norm.weight" in shapes else "none"
    after_pool = shapes.get("pre_logits.weight", shapes.get("head.weight", (0, dim)))
    if "attn_pool.latent" in shapes:
        pool = "map"
    elif class_token and after_pool[-1] == 2 * dim:
        pool = "cls+mean"
    else:
        pool = "mean" if norm == "after_pool" or not class_token else "cls"
    out, head = f"{block}.attn.proj.weight" in shapes, shapes.get(f"{block}.attn.q_norm.weight")
    mlp_dim = shapes[f"{block}.mlp.fc2.weight"][1]
    return {
        "image_size": image_size, "patch_size": (p, q), "channels": channels, "dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "inner": shapes[f"{block}.attn.qkv.weight"][0] // 3, "mlp_dim": mlp_dim,
        "num_classes": shapes["head.weight"][0] if "head.weight" in shapes else 0,
        "class_token": class_token, "dist_token": dist_token, "registers": registers, "pos": pos, "pos_covers": covers,
        "patch_bias": "patch_embed.proj.bias" in shapes, "patch_norms": "patch_embed.pre_norm.weight" in shapes,
        "pre_norm": "norm_pre.weight" in shapes,
        "mlp": "swiglu" if shapes[f"{block}.mlp.fc1.weight"][0] == 2 * mlp_dim else "plain",
        "qkv_bias": "qv" if f"{block}.attn.q_bias" in shapes else f"{block}.attn.qkv.bias" in shapes,
        **({"dim_head": head[0]} if head else {}), "qk_norm": head is not None, "attn_out": out,
        "proj_bias": out and f"{block}.attn.proj.bias" in shapes, "mlp_bias": f"{block}.mlp.fc1.bias" in shapes,
        "layer_scale": f"{block}.ls1.gamma" in shapes,
        "final_norm": norm, "pool": pool, "pool_tokens": _pool_tokens(pool, prefixed=class_token or registers > 0),
        "representation": shapes["pre_logits.weight"][0] if "pre_logits.weight" in shapes else 0,
        "head_bias": "head.bias" in shapes or "head.weight" not in shapes,
        "dropout": 0.0, "emb_dropout": 0.0, "drop_path": 0.0,
    }  # fmt: skip


def _pool_tokens(pool: str, *, prefixed: bool) -> str:
    return "patches" if pool in ("mean", "map", "cls+mean") and prefixed else "all"


def _positions(
    length: int, covered: Mapping[str, int], patch: tuple[int, int], stated: Any, *, where: object
) -> tuple[str, tuple[int, int]]:
    """Which tokens a position table covers, of several numbers in front of the patches, and the image of its grid."""
    if stated is not None:
        height, width = (stated, stated) if isinstance(stated, int) else stated
        cells = (height // patch[0]) * (width // patch[1])
        fits = [name for name, prefix in covered.items() if length - prefix == cells]
        if not fits:
            raise InputError(f"{length} positions do not make an image of {height}x{width}", where=where)
        return fits[-1], (height, width)
    fits = [name for name, prefix in covered.items() if length > prefix and math.isqrt(length - prefix) ** 2 == length - prefix]
    if not fits:
        raise InputError(f"{length} positions are no square grid", where=where, hint="state it: image_size=HEIGHT,WIDTH")
    side = math.isqrt(length - covered[fits[-1]])
    return fits[-1], (side * patch[0], side * patch[1])


def _heads(fields: Mapping[str, Any], *, where: object) -> tuple[int, str]:
    """The head count: of a norm per head, or that of the variants of the same width, depth and MLP, if all of them agree."""
    if "dim_head" in fields:
        return fields["inner"] // fields["dim_head"], "shapes"
    from vit_zoo.zoo_folders import variants

    alike = {
        (variant.fields["heads"], variant.fields["dim_head"])
        for variant in variants().values()
        if all(variant.fields.get(name) == fields[name] for name in ("dim", "depth", "mlp_dim"))
        and variant.fields["heads"] * variant.fields["dim_head"] == fields["inner"]
    }
    if len(alike) != 1:
        size = f"{fields['dim']} wide, {fields['depth']} deep"
        raise InputError(f"the file does not tell heads, and no variant is {size}", where=where, hint="state it: heads=N")
    return next(iter(alike))[0], "the zoo's variants of this size"
