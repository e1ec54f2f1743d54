"""Weight dialects of transformers' BEiT and Data2VecVision.

Source: transformers 5.23 and 4.57, models/beit/modeling_beit.py and models/data2vec/modeling_data2vec_vision.py. The rules have
the names on disk, which both write; 5.x has other names in memory. eps and activation are only in config.json.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.weights.configs.hf import SIDECAR, config_of, prefix_of
from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, layer, rule
from vit_zoo.weights.dialects.hf import ATTENTION, BLOCK, IN_MEMORY, config_from_module, facts_from_module, run_module

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

TABLE = "relative_position_bias.relative_position_bias_table"


def beit_class(spec: ViTSpec) -> tuple[str, str]:
    """The model type and the class of transformers for a spec."""
    return "beit", f"Beit{'ForImageClassification' if spec.num_classes else 'Model'}"


HF_BEIT = Dialect(
    name="hf-beit",
    signature=("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.lambda_1"),
    rules=(
        rule("cls_token", "embeddings.cls_token"),
        rule("pos_embed", "embeddings.position_embeddings"),
        *layer("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        rule("rel_pos_bias.relative_position_bias_table", f"encoder.{TABLE}"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.layernorm_before"),
        rule("blocks.{i}.attn.q_bias", f"{ATTENTION[0]}.bias"),
        rule("blocks.{i}.attn.qkv.weight", *(f"{part}.weight" for part in ATTENTION)),
        rule("blocks.{i}.attn.v_bias", f"{ATTENTION[2]}.bias"),
        rule("blocks.{i}.attn.relative_position_bias_table", f"{BLOCK}.attention.attention.{TABLE}"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attention.output.dense"),
        rule("blocks.{i}.ls1.gamma", f"{BLOCK}.lambda_1"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.layernorm_after"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.intermediate.dense"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.output.dense"),
        rule("blocks.{i}.ls2.gamma", f"{BLOCK}.lambda_2"),
        *layer("norm", "layernorm"),
        *layer("fc_norm", "pooler.layernorm"),
        *layer("head", "classifier"),
    ),
    conventions={},
    renames=(
        (r"^shared_position_bias\.", "encoder.relative_position_bias."),
        (r"^(layers\.\d+)\.relative_position_bias\.", r"\1.attention.attention.relative_position_bias."),
        *IN_MEMORY,
        (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    needs=(Need("patch_embed.proj.bias", "patch_bias"), Need("cls_token", "class_token"), HEAD_BIAS),
    prefixes=("beit.", "data2vec_vision.", ""),
    unprefixed=("classifier",),
    position_covers=("all",),
    unwanted=(r"embeddings\.mask_token", r".*relative_position_index", r"lm_head\..*"),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, beit_class),
    write_config=partial(config_of, beit_class),
    resize="hf",
)
