"""The Vision Transformer (Dosovitskiy et al., 2021), written once for every back end.

`m` holds parameters under timm's names (a torch module, or a scope of weight names) and the tables of `positions.py`,
`op` spells the operations (`torch_ops.py`, `graph/onnx_ops.py`), `spec` says which of them this family uses. Nothing here
knows what a tensor is.

b batch · t tokens (class, distillation, registers, patches) · d dim · n heads · e head width · k classes · c channels ·
p q patch
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.ops import Module, Ops, Rows, Tensor
from vit_zoo.vit_spec import ViTSpec

Maps = list[Tensor] | None  # where attention weights are collected
MAP = ".map"  # after the name of an output that holds tokens: its patches in their places
CLASSES = frozenset({"logits", "probabilities"})


def read_rows(spec: ViTSpec) -> Rows:
    """The rows that pool 'cls' looks at: the class token, and the distillation token where there is one."""
    return 0, 1 + int(spec.dist_token)


def output_names(spec: ViTSpec) -> list[str]:
    """Every output that `vit` can give for this spec."""
    names = ["logits", "probabilities"] if spec.num_classes else []
    names += ["pooler_output"] if spec.pool != "none" else []
    tokens = ["last_hidden_state", *(f"block.{i}" for i in range(spec.depth))]
    return [*names, *tokens, *(f"{name}{MAP}" for name in tokens), *(f"attn.{i}" for i in range(spec.depth))]


def checked_outputs(spec: ViTSpec, outputs: Iterable[str]) -> tuple[str, ...]:
    """The outputs asked for, once each, or the model's own. Raises InputError for one that it does not have."""
    known = output_names(spec)
    for name in outputs:
        if name not in known:
            raise InputError(
                f"no output '{name}'; there are {', '.join(n for n in known if '.' not in n)}, block.N, attn.N, block.N.map"
            )
    return tuple(dict.fromkeys(outputs)) or (spec.output,)


def patch_embedding(m: Module, image: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """The image as a sequence of projected patches (section 3.1, equation 1)."""
    x = op.patches(image, spec.patch_size)  # b (h w) (c p q)
    if spec.patch_norms:
        x = op.norm(m.pre_norm, x, spec.norm_eps)
    x = op.linear(m.proj, x)  # b (h w) d
    return op.norm(m.post_norm, x, spec.norm_eps) if spec.patch_norms else x


def tokens(m: Module, image: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """Class and distillation token, registers and patches, with their positions: b t d."""
    x = op.run(patch_embedding, m.patch_embed, image, spec)
    first = [m.cls_token] if spec.class_token else []
    first += [m.dist_token] if spec.dist_token else []
    registers = [m.reg_token] if spec.registers else []
    if spec.pos_covers == "all":
        x = op.prepend([*first, *registers], x)
    elif spec.pos_covers == "class":
        x = op.prepend(first, x)
    if spec.pos == "learned":
        x = op.add(x, op.weight(m.pos_embed))
    elif spec.pos.startswith("sincos"):
        x = op.add(x, op.table(m.pos_embed, x))
    if spec.pos_covers == "class" and registers:  # DINOv2 with registers: they come in after the positions
        x = op.concat([op.rows(x, 0, 1), op.prepend(registers, op.rows(x, 1, None))])
    elif spec.pos_covers == "patches":
        x = op.prepend([*first, *registers], x)
    x = op.dropout(x, spec.emb_dropout)
    return op.norm(m.norm_pre, x, spec.norm_eps) if spec.pre_norm else x


def attention(m: Module, x: Tensor, spec: ViTSpec, op: Ops, rows: Rows | None, maps: Maps, rope: Any) -> Tensor:
    """Multi-head self-attention; only `rows` ask, all tokens answer. `maps` collects the attention weights.

    `rope`, cosines and sines, turns the queries and keys of patches by their place; `rows` are never patches.
    """
    biases = (m.q_bias, m.v_bias) if spec.qkv_bias == "qv" else None
    q, k, v = op.qkv(m.qkv, x, spec.heads, rows, biases)  # b n t e
    if spec.qk_norm:
        q, k = op.norm(m.q_norm, q, spec.norm_eps), op.norm(m.k_norm, k, spec.norm_eps)
    if spec.pos == "rope":
        q, k = q if rows else op.rotate(q, *rope), op.rotate(k, *rope)
    if maps is not None:
        maps.append(op.attention_weights(q, k))  # b n t t
    x = op.attend(q, k, v, spec.dropout)  # b t (n e)
    return op.dropout(op.linear(m.proj, x), spec.dropout) if spec.attn_out else x


def mlp(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    x = op.linear(m.fc1, x)
    if spec.mlp == "swiglu":
        gate, x = op.halves(x)
        x = op.mul(op.act(gate, spec.act), x)
    else:
        x = op.act(x, spec.act)
    return op.dropout(op.linear(m.fc2, op.dropout(x, spec.dropout)), spec.dropout)


def block(m: Module, x: Tensor, spec: ViTSpec, op: Ops, rows: Rows | None, maps: Maps, rope: Any) -> Tensor:
    """Pre-norm encoder block (equations 2 and 3) on all tokens, or its result for `rows` alone."""
    y = op.run(attention, m.attn, op.norm(m.norm1, x, spec.norm_eps), spec, rows, maps, rope)
    x = x if rows is None else op.rows(x, *rows)
    x = op.add(x, op.drop_path(op.mul(y, op.weight(m.ls1.gamma)) if spec.layer_scale else y, m))
    y = op.run(mlp, m.mlp, op.norm(m.norm2, x, spec.norm_eps), spec)
    return op.add(x, op.drop_path(op.mul(y, op.weight(m.ls2.gamma)) if spec.layer_scale else y, m))


def attention_pool(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """A learned query attends to the tokens, then an MLP (Zhai et al., 2022): b 1 d."""
    q = op.heads(op.linear(m.q, op.weight(m.latent)), spec.heads)
    k, v = op.kv(m.kv, x, spec.heads)
    x = op.linear(m.proj, op.attend(q, k, v, 0.0))
    y = op.linear(m.mlp.fc1, op.norm(m.norm, x, spec.norm_eps))
    return op.add(x, op.linear(m.mlp.fc2, op.act(y, spec.act)))


def pool(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> list[Tensor]:
    """What each head sees of the image: b d, as often as there are heads."""
    found = [op.squeeze(op.rows(x, i, i + 1)) for i in range(*read_rows(spec))] if "cls" in spec.pool else []
    if spec.pool != "cls":
        if spec.pool_tokens == "patches" and spec.prefix_tokens:
            x = op.rows(x, spec.prefix_tokens, None)
        x = op.squeeze(op.run(attention_pool, m.attn_pool, x, spec)) if spec.pool == "map" else op.mean(x)
        found = [op.join([*found, x])]
    if spec.final_norm == "after_pool":
        found = [op.norm(m.fc_norm, x, spec.norm_eps) for x in found]
    if spec.representation:
        found = [op.tanh(op.linear(m.pre_logits, x)) for x in found]
    return found


def whole(outputs: Collection[str]) -> set[str]:
    """The outputs, those of which patches are asked for as a whole."""
    return {name.removesuffix(MAP) for name in outputs}


def blocks_read(spec: ViTSpec, outputs: Collection[str]) -> int:
    """How many blocks the outputs need."""
    names = whole(outputs)
    inner = [name for name in names if "." in name]
    return spec.depth if len(inner) < len(names) else 1 + max(int(name.split(".")[1]) for name in inner)


def unread(spec: ViTSpec, outputs: Collection[str]) -> tuple[str, ...]:
    """Prefixes of the weights behind the last of these outputs: the only ones that may stay unused."""
    names = whole(outputs)
    parts = [] if CLASSES & names else ["head.", "head_dist."]
    if not {*CLASSES, "pooler_output"} & names:
        parts += ["attn_pool.", "fc_norm.", "pre_logits."]
    if not {*CLASSES, "pooler_output", "last_hidden_state"} & names:
        parts += ["norm."]
    return (*parts, *(f"blocks.{i}." for i in range(blocks_read(spec, outputs), spec.depth)))


def vit(m: Module, image: Tensor, spec: ViTSpec, op: Ops, outputs: Collection[str]) -> dict[str, Tensor]:
    """The named outputs for a normalised image, b c H W.

    `logits` b k · `probabilities` b k, their softmax · `pooler_output` b d, what the head sees (two heads: the mean) ·
    `last_hidden_state` b t d, after the final norm where that comes before pooling · `block.N` b t d, after block N, no
    norm · `attn.N` b n t t, the weights after softmax · `block.N.map` and `last_hidden_state.map` b d h w, their patches.
    """
    last, names = spec.depth - 1, whole(outputs)
    every_row = {"last_hidden_state", f"block.{last}", f"attn.{last}"} & names
    found: dict[str, Tensor] = {}
    x = tokens(m, image, spec, op)
    rope = (op.table(m.rope_cos, x), op.table(m.rope_sin, x)) if spec.pos == "rope" else None
    for i in range(blocks_read(spec, names)):
        alone = i == last and spec.pool == "cls" and not every_row and op.prunes(m.blocks[i])
        maps: Maps = [] if f"attn.{i}" in names else None
        x = op.run(block, m.blocks[i], x, spec, read_rows(spec) if alone else None, maps, rope)
        if f"block.{i}" in names:
            found[f"block.{i}"] = x
        if maps:
            found[f"attn.{i}"] = maps[0]
    if spec.final_norm == "before_pool" and blocks_read(spec, names) == spec.depth:
        x = op.norm(m.norm, x, spec.norm_eps)
    if "last_hidden_state" in names:
        found["last_hidden_state"] = x
    if {*CLASSES, "pooler_output"} & set(outputs):
        pooled = pool(m, x, spec, op)
        if "pooler_output" in outputs:
            found["pooler_output"] = op.average(pooled)
        if CLASSES & set(outputs):
            heads = [m.head, m.head_dist] if spec.dist_token else [m.head]
            found["logits"] = op.average([op.linear(head, x) for head, x in zip(heads, pooled, strict=True)])
        if "probabilities" in outputs:
            found["probabilities"] = op.probabilities(found["logits"])
    for name in outputs:
        if name.endswith(MAP):
            patches = op.rows(found[name.removesuffix(MAP)], spec.prefix_tokens, None)
            found[name] = op.map(patches, spec.grid)
    return {name: found[name] for name in outputs}
