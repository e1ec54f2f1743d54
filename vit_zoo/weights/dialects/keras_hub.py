"""Weight dialect of keras-hub's ViT: the file that `save_weights` writes, with the paths of its layers.

Source: keras-hub, src/models/vit/vit_layers.py: eps 1e-6, Keras's GELU, which is exact. The first of several layers of
a kind has no number. Optimizers' variables are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, Rule, layer, rule
from vit_zoo.weights.dialects.flax import IN, IN_BIAS, head_width
from vit_zoo.weights.sidecar import SidecarFormat

EMBEDDING = "vi_t_patching_and_embedding"
BLOCK = "vi_t_encoder/encoder_layers/vi_t_encoder_block_{i}"
ATTENTION = tuple(f"{BLOCK}/mha/{part}_dense" for part in ("query", "key", "value"))


def _layer(ours: str, *theirs: str, pattern: str | None = None, bias_pattern: str | None = None) -> tuple[Rule, Rule]:
    return layer(ours, *theirs, weight="/vars/0", bias="/vars/1", pattern=pattern, bias_pattern=bias_pattern)


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Facts from the config.json of a backbone or a task."""
    inner = config.get("backbone", config)
    inner = inner.get("config", inner) if isinstance(inner, Mapping) else {}
    facts = {
        name: inner[theirs] for name, theirs in (("heads", "num_heads"), ("norm_eps", "layer_norm_epsilon")) if theirs in inner
    }
    if config.get("pooling") == "gap":
        facts["pool"] = "mean"
    return facts


KERAS_HUB = Dialect(
    name="keras-hub",
    signature=(f"{EMBEDDING}/patch_embedding/vars/0", ATTENTION[0].replace("{i}", "0") + "/vars/0"),
    rules=(
        rule("cls_token", f"{EMBEDDING}/vars/0"),
        rule("pos_embed", f"{EMBEDDING}/position_embedding/vars/0", pattern="t d -> 1 t d"),
        *_layer("patch_embed.proj", f"{EMBEDDING}/patch_embedding", pattern="p q c d -> d c p q"),
        *_layer("blocks.{i}.norm1", f"{BLOCK}/layer_norm_1"),
        *_layer("blocks.{i}.attn.qkv", *ATTENTION, pattern=IN, bias_pattern=IN_BIAS),
        *_layer("blocks.{i}.attn.proj", f"{BLOCK}/mha/output_dense", pattern="h e d -> d (h e)"),
        *_layer("blocks.{i}.norm2", f"{BLOCK}/layer_norm_2"),
        *_layer("blocks.{i}.mlp.fc1", f"{BLOCK}/mlp/dense_1", pattern="i o -> o i"),
        *_layer("blocks.{i}.mlp.fc2", f"{BLOCK}/mlp/dense_2", pattern="i o -> o i"),
        *_layer("norm", "vi_t_encoder/layer_norm"),
        *_layer("pre_logits", "pre_logits", pattern="i o -> o i"),
        *_layer("head", "output_dense", pattern="i o -> o i"),
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
