"""Weight dialects of keras-hub's ViT and DeiT: the file that `save_weights` writes, with the paths of its layers.

Source: keras-hub 0.32, src/models/vit and src/models/deit: eps 1e-6, Keras's GELU, which is exact. The first of several layers
of a kind has no number. Optimizers' variables are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.weights.configs.keys import Keys, only, read, read_keys, value_of
from vit_zoo.weights.configs.values import COUNT, EPS, MAX_SIDE, SECTION, TEXT, optional, wholes
from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, Rule, layer, rule
from vit_zoo.weights.dialects.flax import IN, IN_BIAS, head_width
from vit_zoo.weights.sidecar import SidecarFormat

EMBEDDING = "vi_t_patching_and_embedding"
BLOCK = "vi_t_encoder/encoder_layers/vi_t_encoder_block_{i}"


def _layer(ours: str, *theirs: str, pattern: str | None = None, bias_pattern: str | None = None) -> tuple[Rule, Rule]:
    return layer(ours, *theirs, weight="/vars/0", bias="/vars/1", pattern=pattern, bias_pattern=bias_pattern)


# keys of the config.json of a task, or of a backbone alone, which has its arguments under `config`
TASK: Keys = {
    **dict.fromkeys(("backbone", "config"), read("see the arguments", optional(SECTION))),
    "pooling": read("pool", optional(TEXT)),
}
ACTIVATION = only("linear")  # after the head
ARGUMENTS: Keys = {
    "num_heads": read("heads", COUNT),
    "layer_norm_epsilon": read("norm_eps", EPS),
    "image_shape": read("image_size", optional(wholes(3, 1, MAX_SIDE))),
}


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Facts from the config.json of a backbone or a task."""
    task = read_keys(config, TASK, where=where)
    inner = task.get("backbone", config)
    stated = value_of(inner, "config", TASK, where=where)
    stated = read_keys(inner if stated is None else stated, ARGUMENTS, where=where)
    names = (("heads", "num_heads"), ("norm_eps", "layer_norm_epsilon"))
    facts: dict[str, Any] = {name: stated[theirs] for name, theirs in names if theirs in stated}
    if "image_shape" in stated:
        *first, last = stated["image_shape"]
        facts["image_size"] = tuple(first) if last <= first[0] else (first[1], last)  # the channels are last or first
    pooling = task.get("pooling")
    if pooling not in (None, "token", "gap"):
        raise RefusedContent(f"unsupported pooling {shown(pooling)}; expected 'token' or 'gap'", where=where)
    if pooling == "gap":
        facts |= {"pool": "mean", "pool_tokens": "all"}
    if not ACTIVATION.accepts(config.get("activation")):
        cause = f"activation = {shown(config['activation'])} after the head is not supported"
        raise RefusedContent(cause, where=where, hint="set it to null to get the logits")
    return facts


def _blocks(block: str, fc1: str, fc2: str) -> tuple[Rule, ...]:
    """The rules of the blocks; `fc1` and `fc2` are the names of the layers of the MLP."""
    attention = (f"{block}/mha/{part}_dense" for part in ("query", "key", "value"))
    return (
        *_layer("blocks.{i}.norm1", f"{block}/layer_norm_1"),
        *_layer("blocks.{i}.attn.qkv", *attention, pattern=IN, bias_pattern=IN_BIAS),
        *_layer("blocks.{i}.attn.proj", f"{block}/mha/output_dense", pattern="h e d -> d (h e)"),
        *_layer("blocks.{i}.norm2", f"{block}/layer_norm_2"),
        *_layer("blocks.{i}.mlp.fc1", f"{block}/{fc1}", pattern="i o -> o i"),
        *_layer("blocks.{i}.mlp.fc2", f"{block}/{fc2}", pattern="i o -> o i"),
    )


HEADS = (
    *_layer("pre_logits", "pre_logits", pattern="i o -> o i"),
    *_layer("head", "output_dense", pattern="i o -> o i"),
)


KERAS_HUB = Dialect(
    name="keras-hub",
    signature=(f"{EMBEDDING}/patch_embedding/vars/0", BLOCK.replace("{i}", "0") + "/mha/query_dense/vars/0"),
    rules=(
        rule("cls_token", f"{EMBEDDING}/vars/0"),
        rule("pos_embed", f"{EMBEDDING}/position_embedding/vars/0", pattern="t d -> 1 t d"),
        *_layer("patch_embed.proj", f"{EMBEDDING}/patch_embedding", pattern="p q c d -> d c p q"),
        *_blocks(BLOCK, "mlp/dense_1", "mlp/dense_2"),
        *_layer("norm", "vi_t_encoder/layer_norm"),
        *HEADS,
    ),
    conventions={"norm_eps": 1e-6, "act": "gelu"},
    renames=(
        (r"vi_t_encoder_block/", "vi_t_encoder_block_0/"),
        (r"^layers/(dense|output_dense|predictions)/", "output_dense/"),
        (r"^layers/pre_logits/", "pre_logits/"),
    ),
    needs=(Need("pos_embed", "pos"), Need("patch_embed.proj.bias", "patch_bias"), HEAD_BIAS),
    prefixes=("layers/vi_t_backbone/layers/", "layers/vi_t_backbone/", "layers/", "_backbone/layers/"),
    unprefixed=("layers/dense/", "layers/output_dense/", "layers/predictions/", "layers/pre_logits/"),
    unwanted=(r"optimizer/.*", r".*/seed_generator/.*", r"(_metrics|metrics|loss)/.*", r"preprocessor/.*"),
    sidecar=SidecarFormat(facts_of_config),
    facts_from_shapes=partial(head_width, r"mha/query_dense/vars/0$"),
)

# The class token alone is classified: the distillation token is a register, as in transformers' DeiTForImageClassification.
DEIT_EMBEDDING = "dei_t_embeddings"
DEIT_BLOCK = "dei_t_encoder/encoder_layers/dei_t_encoder_block_{i}"
KERAS_HUB_DEIT = replace(
    KERAS_HUB,
    name="keras-hub-deit",
    signature=(f"{DEIT_EMBEDDING}/patch_embedding/vars/0", DEIT_BLOCK.replace("{i}", "0") + "/mha/query_dense/vars/0"),
    rules=(
        rule("cls_token", f"{DEIT_EMBEDDING}/vars/0"),
        rule("reg_token", f"{DEIT_EMBEDDING}/vars/1"),
        rule("pos_embed", f"{DEIT_EMBEDDING}/vars/2"),
        *_layer("patch_embed.proj", f"{DEIT_EMBEDDING}/patch_embedding", pattern="p q c d -> d c p q"),
        *_blocks(DEIT_BLOCK, "mlp/dense", "output_layer/dense"),
        *_layer("norm", "dei_t_encoder/layer_norm"),
        *HEADS,
    ),
    renames=((r"dei_t_encoder_block/", "dei_t_encoder_block_0/"), *KERAS_HUB.renames[1:]),
    needs=(*KERAS_HUB.needs, Need("cls_token", "class_token"), Need("reg_token", "registers")),
    position_covers=("all",),
    prefixes=("layers/dei_t_backbone/layers/", "layers/dei_t_backbone/", "layers/", "_backbone/layers/"),
)
