"""keras-hub's ViT: the weights file that `save_weights` writes, with the paths of its layers.

Source: keras-hub, src/models/vit/vit_layers.py: eps 1e-6, Keras's GELU, which is exact. The first of equal layers has no
number. Optimizers' variables are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, layer, rule
from vit_zoo.weights.dialects.flax import IN, IN_BIAS, head_width
from vit_zoo.weights.sidecar import SidecarFormat

BLOCK = "vi_t_encoder/encoder_layers/vi_t_encoder_block_{i}"


def _layer(ours: str, *theirs: str, turned: str | None = None, biases: str | None = None) -> Any:
    return layer(ours, *theirs, weight="/vars/0", bias="/vars/1", turned=turned, biases=biases)


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """What a backbone's or a task's own config.json says."""
    inner = config.get("backbone", config)
    inner = inner.get("config", inner) if isinstance(inner, Mapping) else {}
    found = {
        name: inner[theirs] for name, theirs in (("heads", "num_heads"), ("norm_eps", "layer_norm_epsilon")) if theirs in inner
    }
    if config.get("pooling") == "gap":
        found["pool"] = "mean"
    return found


EMBEDDING = "vi_t_patching_and_embedding"
KERAS_HUB: Dialect = Dialect(
    name="keras-hub",
    signature=(f"{EMBEDDING}/patch_embedding/vars/0", BLOCK.replace("{i}", "0") + "/mha/query_dense/vars/0"),
    rules=(
        rule("cls_token", f"{EMBEDDING}/vars/0"),
        rule("pos_embed", f"{EMBEDDING}/position_embedding/vars/0", pattern="t d -> 1 t d"),
        *_layer("patch_embed.proj", f"{EMBEDDING}/patch_embedding", turned="p q c d -> d c p q"),
        *_layer("blocks.{i}.norm1", f"{BLOCK}/layer_norm_1"),
        *_layer("blocks.{i}.attn.qkv", *(f"{BLOCK}/mha/{p}_dense" for p in ("query", "key", "value")), turned=IN, biases=IN_BIAS),
        *_layer("blocks.{i}.attn.proj", f"{BLOCK}/mha/output_dense", turned="h e d -> d (h e)"),
        *_layer("blocks.{i}.norm2", f"{BLOCK}/layer_norm_2"),
        *_layer("blocks.{i}.mlp.fc1", f"{BLOCK}/mlp/dense_1", turned="i o -> o i"),
        *_layer("blocks.{i}.mlp.fc2", f"{BLOCK}/mlp/dense_2", turned="i o -> o i"),
        *_layer("norm", "vi_t_encoder/layer_norm"),
        *_layer("pre_logits", "pre_logits", turned="i o -> o i"),
        *_layer("head", "output_dense", turned="i o -> o i"),
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
