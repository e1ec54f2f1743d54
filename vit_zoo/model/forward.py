"""The Vision Transformer (Dosovitskiy et al., 2021), written once for every back end.

Arguments of every function:

`m` parameters under timm's names, and the tables of `positions.py`: a torch module, or a scope of weight names
`x` tokens, or `image`; values are opaque: tensors in torch, names of values in an ONNX graph
`spec` the options of the family
`op` the back end's operations (`ops.py`): `torch_ops.py` or `graph/onnx_ops.py`

Shapes: b batch · t tokens (class, distillation, registers, patches, in this order) · d dim · n heads · e head width ·
r query rows · k classes · c channels · p q patch · h w grid
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from vit_zoo.model.ops import Activation, Module, Ops, Rope, Rows, Tensor
from vit_zoo.model.outputs import EMBEDDING, MAP, output_plan, pooled_rows
from vit_zoo.model.spec import ViTSpec


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """Inputs of attention other than its tokens."""

    rope: Rope | None = None  # of this block, from `rope_tables`
    pairs: Tensor | None = None  # t t, rows of the tables of relative biases
    score_bias: Tensor | None = None  # 1 n t t, added to the scores before softmax, the same in all blocks
    query_rows: Rows | None = None  # the tokens to compute queries for, never patches; None: all tokens
    weights: list[Tensor] | None = None  # attention appends its weights after softmax, b n r t; None: not needed


TOKENS_ONLY = AttentionContext()


def patch_embedding(m: Module, image: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """Cut the image into patches and project them (section 3.1, equation 1): b c H W -> b (h w) d."""
    x = op.patches(image, spec.patch_size)  # b (h w) (c p q)
    x = op.linear(m.proj, op.norm(m.pre_norm, x, spec) if spec.patch_norms is True else x)  # b (h w) d
    return op.norm(m.norm if spec.patch_norms == "after" else m.post_norm, x, spec) if spec.patch_norms else x


def tokens(m: Module, image: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """Join class token, distillation token, registers and patches, and add positions: b c H W -> b t d."""
    x = op.run(patch_embedding, m.patch_embed, image, spec)
    first = [*([m.cls_token] if spec.class_token else []), *([m.dist_token] if spec.dist_token else [])]
    registers = [m.reg_token] if spec.registers else []
    x = op.prepend({"all": [*first, *registers], "class": first, "patches": []}[spec.pos_covers], x)
    if spec.learned_pos:
        x = op.add(x, op.weight(m.pos_embed))
    elif spec.pos.startswith("sincos"):
        x = op.add(x, op.table(m.pos_embed, x))
    if spec.pos_covers == "class" and registers:  # added after the positions, between class token and patches
        x = op.concat([op.rows(x, 0, 1), op.prepend(registers, op.rows(x, 1, None))])
    elif spec.pos_covers == "patches":
        x = op.prepend([*first, *registers], x)
    x = op.dropout(x, spec.emb_dropout)
    return op.norm(m.norm_pre, x, spec) if spec.pre_norm else x


def rope_tables(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> Sequence[Rope | None]:
    """Return the cosines and sines that rotate queries and keys of each block, t 1 e/2 or t n e/2; None where nothing rotates."""
    if spec.rotates and spec.rope == "mixed":  # by learned frequencies (Heo et al., 2024)
        return op.mixed_rotations(m.rope.freqs, op.table(m.rope_places, x), spec.depth)
    return [(op.table(m.rope_cos, x), op.table(m.rope_sin, x)) if spec.rotates else None] * spec.depth


def attention(m: Module, x: Tensor, spec: ViTSpec, op: Ops, context: AttentionContext = TOKENS_ONLY) -> Tensor:
    """Multi-head self-attention (appendix A): b t d -> b r d. Keys and values are computed for all tokens."""
    rows, bias = context.query_rows, context.score_bias
    biases = (m.q_bias, m.v_bias) if spec.qkv_bias == "qv" else None
    q, k, v = op.qkv(m.qkv, x, spec.heads, rows, biases)  # b n r e, b n t e, b n t e
    q, k = (op.norm(m.q_norm, q, spec), op.norm(m.k_norm, k, spec)) if spec.qk_norm else (q, k)
    if context.rope is not None:
        q, k = op.rotate(q, None if rows else context.rope, spec), op.rotate(k, context.rope, spec)
    bias = op.relative_bias(m.relative_position_bias_table, context.pairs) if spec.relative_bias == "blocks" else bias
    bias = op.bias_rows(bias, rows) if bias is not None and rows else bias
    if context.weights is not None:
        context.weights.append(op.attention_weights(q, k, bias))  # b n r t
    x = op.attend(q, k, v, spec.dropout, bias)  # b r (n e)
    x = op.norm(m.norm, x, spec) if spec.attn_norm else x
    if spec.attn_out:
        x = op.dropout(op.linear(m.proj, x), spec.dropout)
    return x


def mlp(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """Two linear layers with an activation, or a gated activation (Shazeer, 2020), between them: b t d -> b t d."""
    x = op.linear(m.fc1, x)
    if spec.mlp == "swiglu":
        gate, x = op.halves(x)
        x = op.mul(op.act(gate, spec.act), x)
    else:
        x = op.act(x, spec.act)
    x = op.dropout(x, spec.dropout)
    x = op.norm(m.norm, x, spec) if spec.mlp_norm else x
    return op.dropout(op.linear(m.fc2, x), spec.dropout)


def residual(m: Module, x: Tensor, y: Tensor, scale: Module | None, op: Ops) -> Tensor:
    """Return x + y, with y multiplied by LayerScale's vector if there is one, and dropped at random in training."""
    y = y if scale is None else op.mul(y, op.weight(scale.gamma))
    return op.add(x, op.drop_path(y, m))


def branch(part: Callable[..., Tensor], m: Module, norm: Module, x: Tensor, spec: ViTSpec, op: Ops, *context: Any) -> Tensor:
    """Compute a part, attention or the MLP, of the normalised tokens, or normalise its result (`block_norm`): b t d -> b r d."""
    if spec.block_norm == "post":
        return op.norm(norm, op.run(part, m, x, spec, *context), spec)
    return op.run(part, m, op.norm(norm, x, spec), spec, *context)


def block(m: Module, x: Tensor, spec: ViTSpec, op: Ops, context: AttentionContext = TOKENS_ONLY) -> Tensor:
    """Encoder block (equations 2 and 3): b t d -> b r d."""
    ls1, ls2 = (m.ls1, m.ls2) if spec.layer_scale else (None, None)
    y = branch(attention, m.attn, m.norm1, x, spec, op, context)
    x = x if context.query_rows is None else op.rows(x, *context.query_rows)
    x = residual(m, x, y, ls1, op)
    return residual(m, x, branch(mlp, m.mlp, m.norm2, x, spec, op), ls2, op)


def attention_pool(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> Tensor:
    """Attention of a learned query to the tokens, then an MLP (Zhai et al., 2022): b t d -> b 1 d."""
    heads = spec.pool_heads or spec.heads
    q = op.heads(op.linear(m.q, op.weight(m.latent)), heads)
    k, v = op.kv(m.kv, x, heads)
    x = op.linear(m.proj, op.attend(q, k, v, 0.0))
    y = op.linear(m.mlp.fc1, op.norm(m.norm, x, spec))
    return op.add(x, op.linear(m.mlp.fc2, op.act(y, spec.act)))


def pool(m: Module, x: Tensor, spec: ViTSpec, op: Ops) -> list[Tensor]:
    """Reduce the tokens to the input of each head, one or two of them: b t d -> b d, each."""
    pooled = [op.squeeze(op.rows(x, i, i + 1)) for i in range(*pooled_rows(spec))] if "cls" in spec.pool else []
    if spec.pool != "cls":
        if spec.pool_tokens == "patches" and spec.prefix_tokens:
            x = op.rows(x, spec.prefix_tokens, None)
        x = op.squeeze(op.run(attention_pool, m.attn_pool, x, spec)) if spec.pool == "map" else op.mean(x)
        pooled = [op.join([*pooled, x])]
    if spec.final_norm == "after_pool":
        pooled = [op.norm(m.fc_norm, x, spec) for x in pooled]
    return [op.tanh(op.linear(m.pre_logits, x)) for x in pooled] if spec.representation else pooled


def logits(m: Module, pooled: list[Tensor], spec: ViTSpec, op: Ops) -> Tensor:
    """Classify each pooled vector by its head and average: b d, one or two -> b k."""
    heads = [m.head, m.head_dist] if spec.dist_token else [m.head]
    pooled = [op.normalize(x) for x in pooled] if spec.cosine_head else pooled
    return op.average([op.linear(head, x) for head, x in zip(heads, pooled, strict=True)])


def vit(
    m: Module, image: Tensor, spec: ViTSpec, op: Ops, outputs: Collection[str], activation: Activation = "softmax"
) -> dict[str, Tensor]:
    """Compute named outputs for a normalised image, b c H W. `outputs.output_names` lists them with their shapes.

    `activation` makes probabilities of the logits.
    """
    plan = output_plan(spec, outputs)
    values: dict[str, Tensor] = {}
    x = tokens(m, image, spec, op)
    ropes = rope_tables(m, x, spec, op)
    pairs = op.pairs(m.relative_rows) if spec.relative_bias != "none" else None
    bias = op.relative_bias(m.rel_pos_bias.relative_position_bias_table, pairs) if spec.relative_bias == "shared" else None
    for i in range(plan.blocks):
        pruned = plan.last_rows is not None and i == spec.depth - 1 and op.prunes(m.blocks[i])
        weights: list[Tensor] | None = [] if f"attn.{i}" in plan.values else None
        rows = plan.last_rows if pruned else None
        context = AttentionContext(rope=ropes[i], pairs=pairs, score_bias=bias, query_rows=rows, weights=weights)
        x = op.run(block, m.blocks[i], x, spec, context)
        if f"block.{i}" in plan.values:
            values[f"block.{i}"] = x
        if context.weights:
            values[f"attn.{i}"] = context.weights[0]
    if spec.final_norm == "before_pool" and plan.blocks == spec.depth:
        x = op.norm(m.norm, x, spec)
    if "last_hidden_state" in plan.values:
        values["last_hidden_state"] = x
    if plan.pooled:
        pooled = pool(m, x, spec, op)
        if "pooler_output" in outputs:
            values["pooler_output"] = op.average(pooled)
        if plan.projected:
            pooled = [op.linear(m.projection, x) for x in pooled]
            values[EMBEDDING] = op.average(pooled)
        if plan.logits:
            values["logits"] = logits(m, pooled, spec, op)
            values.setdefault(EMBEDDING, values["logits"])
        if "probabilities" in outputs:
            values["probabilities"] = op.probabilities(values["logits"], activation)
    for name in outputs:
        if name.endswith(MAP):
            patches = op.rows(values[name.removesuffix(MAP)], spec.prefix_tokens, None)
            values[name] = op.map(patches, spec.grid)
    return {name: values[name] for name in outputs}
