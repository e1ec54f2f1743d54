"""Weight dialects of TIPSv2 as transformers stores it; its modules have the names of Dinov2WithRegisters.

Source: transformers 5.23, models/tipsv2/modeling_tipsv2.py and conversion_mapping.py: eps 1e-6, exact GELU, the class token after
the final norm. The register is a second class token, which was trained with other captions.
"""

from __future__ import annotations

from dataclasses import replace

from vit_zoo.weights.configs.hf import SIDECAR
from vit_zoo.weights.dialect import layer, replaced
from vit_zoo.weights.dialects.meta import BLOCK, DINOV2

HF_TIPSV2 = replace(
    DINOV2,
    name="hf-tipsv2",
    signature=(*DINOV2.signature, "blocks.0.mlp.c_fc.weight"),
    rules=replaced(
        DINOV2.rules, *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.c_fc"), *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.c_proj")
    ),
    prefixes=("vision_encoder.", "vision_model.", ""),
    unwanted_outside=(r"text_(encoder|model)\..*", r"(logit_scale|temperature|logit_bias)"),
    sidecar=SIDECAR,
    resize="naflex",
    resize_with_registers="naflex",
)
