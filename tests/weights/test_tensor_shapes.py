"""Tests of tensors with other shapes and names, in every dialect: read or refused in one line, in linear time."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.refusals import refusal_of
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.loading.read_tensors import read_tensors
from vit_zoo.weights.candidates import MAX_PLACES
from vit_zoo.weights.dialects import DIALECTS
from vit_zoo.weights.dialects.beit3 import PADDING, POSITIONS
from vit_zoo.weights.dialects.flax import BIG_VISION
from vit_zoo.weights.head_file import with_head_file
from vit_zoo.weights.keys import MAX_AXES, MAX_NAME, MAX_TENSORS
from vit_zoo.weights.resize import resize_kernel
from vit_zoo.weights.translate import to_theirs

DIM, HEADS = 8, 2
FACTS = {"heads": HEADS, "norm_eps": 1e-6, "act": "gelu", "block_norm": "pre"}
FILE = Path("model.safetensors")
LINEAR = {  # rows of the layers of a model
    "attn_pool.q": (DIM, DIM), "attn_pool.kv": (2 * DIM, DIM), "attn_pool.proj": (DIM, DIM), "attn_pool.mlp.fc1": (16, DIM),
    "attn_pool.mlp.fc2": (DIM, 16), "pre_logits": (DIM, DIM), "head": (3, DIM), "head_dist": (3, DIM),
    "blocks.0.attn.qkv": (3 * DIM, DIM), "blocks.0.attn.proj": (DIM, DIM), "blocks.0.mlp.fc1": (16, DIM),
    "blocks.0.mlp.fc2": (DIM, 16),
}  # fmt: skip
PATCH_NORM = 3 * 4 * 4
CLIPS = ("openai-clip", "open_clip", "hf-clip")
RMS = ("timm-swiglu", "aimv2", "hf-aimv2")
# tensors that not all models of a dialect have, and that exclude others
VARIANTS = (
    "dist_token", "head_dist", "pre_logits", "fc_norm", "norm_pre", "patch_embed.p", "blocks.0.attn.q_", "blocks.0.attn.k_",
    "blocks.0.attn.v_", "attn_pool", "blocks.0.attn.norm", "blocks.0.mlp.norm", "patch_embed.norm", "rope.freqs", "rel_pos_bias",
    "blocks.0.attn.relative",
)  # fmt: skip


def zeros(*shape, dtype="F32"):
    return Stored(dtype, shape, partial(np.zeros, shape, "<f4"))


def ours(name):
    """A tensor of ours of a model with 4 patches and a class token."""
    stem, _, kind = name.rpartition(".")
    if name in ("cls_token", "dist_token", "reg_token", "attn_pool.latent"):
        return zeros(1, 1, DIM)
    if name == "pos_embed":
        return zeros(1, 5, DIM)
    if name.endswith("relative_position_bias_table"):
        return zeros(12, HEADS)
    if stem == "patch_embed.proj":
        return zeros(DIM, 3, 4, 4) if kind == "weight" else zeros(DIM)
    if stem == "patch_embed.pre_norm":
        return zeros(PATCH_NORM)
    shape = LINEAR.get(stem)
    return zeros(DIM) if shape is None or kind not in ("weight", "bias") else zeros(*(shape if kind == "weight" else shape[:1]))


def tensors_of(dialect):
    """The tensors of a small model of a dialect, by the file's names."""
    needed = {need.tensor for need in dialect.needs if need.where_present is None} | {"patch_embed.proj.weight"}
    needed |= {"norm_pre.weight", "norm_pre.bias"} if dialect.name.removesuffix("-classifier") in CLIPS else set()
    if dialect.name == "vitzoo" or "patch_embed.pre_norm.weight" in needed:
        needed |= {f"patch_embed.{norm}.{kind}" for norm in ("pre_norm", "post_norm") for kind in ("weight", "bias")}
    needed |= {"dist_token", "head_dist.weight", "head_dist.bias"} if dialect.name == "hf-deit-teacher" else set()
    names, model = {}, {}
    for rule in dialect.rules:
        name, *theirs = (each.replace("{i}", "0") for each in (rule.ours, *rule.theirs))
        rotated = dialect.conventions.get("pos") == "rope" and name.endswith(("q_bias", "v_bias"))
        if name == "pos_embed" and "learned" not in dialect.conventions.get("pos", "learned"):
            continue
        if name.endswith("bias") and "norm" in name and dialect.name in RMS:
            continue
        rotated = rotated or (name.endswith("v_bias") and name.replace("v_bias", "q_bias") in names)
        second = name.endswith(("norm_pre.bias", "attn.norm.bias")) and f"{name.removesuffix('bias')}weight" in names
        if name == "reg_token" and "beit" in dialect.name:  # whose biases are for patches and the class token
            continue
        if name in needed or rotated or second or set(theirs) & set(dialect.signature) or not name.startswith(VARIANTS):
            names.setdefault(name, rule)
    if any(name.endswith("q_bias") for name in names):
        names.pop("blocks.0.attn.qkv.bias", None)
    for name, rule in names.items():
        model[name] = ours(name)
        if name.startswith("blocks.0.mlp.fc1") and (len(rule.theirs) == 2 or dialect.conventions.get("mlp") == "swiglu"):
            model[name] = zeros(32, *model[name].shape[1:])
    tokens = sum(name in model for name in ("cls_token", "dist_token", "reg_token")) if dialect.name != "deit3" else 0
    table = next((rule for rule in dialect.rules if rule.ours == "pos_embed"), None)
    on_grid = table is not None and "(h w)" in (table.pattern or "")
    if "pos_embed" in model:
        model["pos_embed"] = zeros(1, 4 + tokens * (dialect.position_covers != ("patches",)), DIM)
    if on_grid:  # a table of rows and columns, which no file is written with
        del model["pos_embed"]
    theirs = to_theirs(dialect, model, {"p": 4, "q": 4, "c": 3, "h": HEADS, "e": DIM // HEADS})
    if on_grid:
        theirs[dialect.prefixes[0] + table.theirs[0]] = zeros(*((1, 2, 2, DIM) if table.pattern.startswith("1") else (2, 2, DIM)))
    if dialect.name.startswith("dinov3"):  # a bias for queries, keys and values, with a mask of those that keys do not have
        mask = np.repeat(np.float32([1, 0, 1]), DIM)
        theirs |= {"blocks.0.attn.qkv.bias": zeros(3 * DIM), "rope_embed.periods": zeros(DIM // HEADS // 4)}
        theirs["blocks.0.attn.qkv.bias_mask"] = Stored("F32", mask.shape, lambda: mask)
    if dialect.name == "beit3":
        theirs[f"beit3.{POSITIONS}"] = zeros(5 + PADDING, DIM)
    missing = [name for name in dialect.signature if not any(key.endswith(name) for key in theirs)]
    return {**theirs, **{dialect.prefixes[0] + name: zeros(1) for name in missing}}


def error_of(tensors):
    """The error of reading tensors, with all values; None where they are read."""

    def read():
        table = any(name.endswith(("pos_embed", "pos_embedding", "positional_embedding", "vars/2")) for name in tensors)
        table = table or any("position_embedding" in name for name in tensors)
        checkpoint = read_tensors(tensors, FACTS if table else {**FACTS, "image_size": 8}, FILE)
        assert all(tensor.array().shape == tensor.shape for tensor in checkpoint.tensors.values())

    return refusal_of(read, longest=1500)


def other_shapes(shape):
    """Shapes that a tensor of this one could have in a damaged or made-up file."""
    return [
        (), (0,), (1,), (0, *shape[1:]), (*shape, 0), (*shape, 1), (1, *shape), shape[1:], shape[:-1], shape[::-1],
        (2, 3, 4, 5, 6), tuple(n + 1 for n in shape), tuple(2 * n for n in shape), (1,) * len(shape), (10**9, 0), (2**40, 0, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_tensor_of_another_shape(dialect):
    """Each tensor gets a few of the shapes, so that all tensors of a dialect together get all."""
    tensors = tensors_of(dialect)
    assert error_of(tensors) is None
    for at, (key, tensor) in enumerate(tensors.items()):
        shapes = other_shapes(tensor.shape)
        for shape in {shapes[(at + i * 5) % len(shapes)] for i in range(2)} - {tensor.shape}:
            error_of({**tensors, key: zeros(*shape)})
        if at % 8 == 0:
            error_of({**tensors, key: zeros(*tensor.shape, dtype="I64")})
            error_of({name: each for name, each in tensors.items() if name != key})


def timm(depth=1):
    tensors = tensors_of(next(dialect for dialect in DIALECTS if dialect.name == "timm"))
    blocks = {name: tensor for name, tensor in tensors.items() if name.startswith("blocks.0.")}
    return {**tensors, **{name.replace("0", str(i), 1): tensor for i in range(1, depth) for name, tensor in blocks.items()}}


@pytest.mark.parametrize("number", ["9" * 20, "9" * 400, "²", "1٢", "01", "-1", "1e3", "100000", "+1"])
def test_numbers_of_blocks(number):
    refused = error_of({**timm(), f"blocks.{number}.norm1.weight": zeros(DIM)})
    assert isinstance(refused, RefusedContent)


@pytest.mark.parametrize("name", ["head.weight", "pre_logits.weight", "pos_embed", "reg_token", "patch_embed.proj.weight"])
@pytest.mark.parametrize("shape", [(), (DIM,), (1,) * 5])
def test_axes_of_tensors_that_fields_are_taken_from(name, shape):
    refused = error_of({**timm(), name: zeros(*shape)})
    assert isinstance(refused, RefusedContent)
    assert f"{name!r} has shape {list(shape)}; expected" in str(refused)


def test_fewer_rows_than_queries_keys_and_values():
    """Without a width of attention, neither the file nor a convention gives a number of heads."""
    clip = next(dialect for dialect in DIALECTS if dialect.name == "openai-clip")
    tensors = {**tensors_of(clip), "visual.transformer.resblocks.0.attn.in_proj_weight": zeros(2, DIM)}
    with pytest.raises(InputError, match="0 heads do not divide the attention width 0"):
        read_tensors(tensors, {}, FILE)


def test_more_blocks_than_a_model_has():
    refused = error_of({**timm(), **{f"blocks.{i}.norm1.weight": zeros(DIM) for i in range(1, 1200)}})
    assert isinstance(refused, InputError)
    assert "depth = 1200" in str(refused)


@pytest.mark.parametrize(
    ("tensors", "cause"),
    [
        ({str(i): zeros(1) for i in range(MAX_TENSORS + 1)}, "has 20,001 tensors"),
        ({"a" * (MAX_NAME + 1): zeros(1)}, "a tensor name of 501 characters"),
        ({"a": zeros(*(1,) * (MAX_AXES + 1))}, "'a' has 33 axes"),
        ({f"x{i}.patch_embed.proj.weight": zeros(1) for i in range(MAX_PLACES + 1)}, "in 65 places, 'x0' to 'x64'"),
    ],
    ids=["tensors", "name", "axes", "places"],
)
def test_limits(tensors, cause):
    refused = error_of(tensors)
    assert isinstance(refused, RefusedContent)
    assert cause in str(refused)


def queries(n):
    return {f"vit.encoder.layer.{i}.attention.attention.query.weight": zeros(DIM, DIM) for i in range(1, n)}


def chain(n):
    """Layers after a model, each of which takes the features of the one before, the last first."""
    layers = {f"k{i}.weight": zeros(1001 + i, 1000 + i if i else DIM) for i in reversed(range(n))}
    return {**{f"model.{name}": tensor for name, tensor in timm().items()}, **layers}


LONG = {
    "queries alone": lambda n: {**tensors_of(next(each for each in DIALECTS if each.name == "hf-vit")), **queries(n)},
    "biases alone": lambda n: {**timm(), **{f"blocks.{i}.norm1.bias": zeros(DIM) for i in range(1, n)}},
    "a chain of layers": chain,
    "copies": lambda n: {f"m{i}.{name}": tensor for i in range(MAX_PLACES) for name, tensor in timm(n // 500).items()},
    "unknown names": lambda n: {f"a{i}.b": zeros(1) for i in range(n)},
    "slashes": lambda n: {f"a/Transformer/encoderblock_{i}/LayerNorm_0/scale": zeros(DIM) for i in range(n)},
}


@pytest.mark.parametrize("kind", LONG)
def test_time_for_thousands_of_tensors(kind):
    """About a second where each tensor is read once, half a minute or more where each is compared with each."""
    tensors = LONG[kind](6000)
    begin = time.process_time()
    error_of(tensors)
    assert time.process_time() - begin < 10


def test_an_empty_tensor_does_not_stand_for_a_billion_blocks():
    model = tensors_of(BIG_VISION)
    name = "params/img/Transformer/encoderblock/LayerNorm_0/scale"
    for shape in ((10**9, 0), (2**40, 0), (10**6, 1)):
        scanned = {**model, name: zeros(*shape) if math.prod(shape) == 0 else Stored("F32", shape, dict)}
        assert len(BIG_VISION.prepare(scanned)) == len(scanned)
    assert len(BIG_VISION.prepare({name: zeros(3, DIM)})) == 3


def test_the_file_of_a_head_for_a_damaged_model():
    model = {name: tensor for name, tensor in timm().items() if not name.startswith("head.")}
    dialect = next(dialect for dialect in DIALECTS if dialect.name == "timm")
    for shape in ((), (0,), (1, 2)):
        damaged = {**model, "blocks.0.norm1.weight": zeros(*shape)}
        with pytest.raises(RefusedContent, match="features"):
            with_head_file(damaged, dialect, {"weight": zeros(3, DIM)}, where="m", head_where="h")
    with pytest.raises(RefusedContent, match="features"):
        with_head_file(model, dialect, {"weight": zeros(3, 0)}, where="m", head_where="h")


def test_patches_that_are_too_large_to_resize():
    with pytest.raises(InputError, match=r"cannot resize patches of 1000x1000 to 4x4: the limit is 4,096 pixels"):
        resize_kernel(Stored("F32", (1, 1, 1000, 1000), dict), (4, 4), "timm")
