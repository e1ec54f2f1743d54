"""Weight dialects of OpenAI's CLIP and of open_clip's own image tower, which have the same names.

The timm towers of open_clip have timm's names.

Sources: openai/CLIP, clip/model.py; mlfoundations/open_clip, src/open_clip/transformer.py. eps 1e-5. OpenAI's archives mix
half and float, and hold three numbers by which they are recognised: QuickGELU, heads of width 64. In open_clip's files,
neither follows from the tensors, nor do the pooling and on which side of it the final norm is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.weights.configs.open_clip import POOLS, SIDECAR
from vit_zoo.weights.dialect import Dialect, Need, layer, rule

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

NUMBERS = ("input_resolution", "context_length", "vocab_size")
BLOCK = "transformer.resblocks.{i}"
# tensors that are stored in one file with an image tower
CLIP_TEXT = (
    r"logit_scale", r"logit_bias", r"text\..*", r"text_model\..*", r"transformer\.(resblocks|encoder)\..*",
    r"token_embedding\..*", r"positional_embedding", r"ln_final\..*", r"text_projection(\.weight|\.bias)?", r"attn_mask",
    r"input_resolution|context_length|vocab_size", r"text_decoder\..*",
)  # fmt: skip


ACTS = {("GELU", "none"): "gelu", ("GELU", "tanh"): "gelu_tanh", ("QuickGELU", ""): "quick_gelu"}


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module, of the tower alone or of a model with a text tower."""
    tower = getattr(module, "visual", module)
    block = tower.transformer.resblocks[0]
    act = (type(block.mlp.gelu).__name__, getattr(block.mlp.gelu, "approximate", ""))
    pool = getattr(tower, "pool_type", "tok")  # OpenAI's class has no other
    if act not in ACTS:
        raise NotRepresentable(f"unsupported open_clip model: its activation is {act[0]}")
    if pool not in POOLS:
        raise NotRepresentable(f"unsupported open_clip model: its pooling is '{pool}'")
    facts = {
        "heads": block.attn.num_heads,
        "image_size": getattr(tower, "image_size", None) or tower.input_resolution,
        "norm_eps": block.ln_1.eps,
        "act": ACTS[act],
        "pool": POOLS[pool],
        "pre_norm": hasattr(tower.ln_pre, "weight"),
    }
    if pool == "avg":  # for the class token alone, both places of the norm give the same
        facts |= {"pool_tokens": "patches", "final_norm": "after_pool" if tower.final_ln_after_pool else "before_pool"}
    return facts


def config_from_module(module: Any) -> dict[str, Any]:
    """How a live module's images are prepared, as in open_clip_config.json."""
    tower = getattr(module, "visual", module)
    cfg = dict(getattr(tower, "preprocess_cfg", None) or {})
    if not cfg and getattr(tower, "image_mean", None) is not None:  # before open_clip 2.24
        cfg = {"mean": tower.image_mean, "std": tower.image_std}
    size = cfg.get("size") or getattr(tower, "image_size", None)
    size = list(size) if isinstance(size, tuple) else size
    return {"model_cfg": {"vision_cfg": {"image_size": size}}, "preprocess_cfg": cfg} if cfg else {}


def run_module(module: Any, images: Any) -> Any:
    """The result of a live module: of the image tower, if it has a text tower too."""
    return getattr(module, "encode_image", module)(images)


def write_facts(spec: ViTSpec) -> dict[str, Any]:
    """What open_clip takes from its config: the activation, as the flag `quick_gelu`, and the pooling."""
    act = {"act": spec.act} if spec.act in ("gelu", "quick_gelu") else {}
    return act if spec.pre_norm else {**act, "pool": spec.pool}


# what every tower of these names has
NEEDS = (
    Need("pos_embed", "pos"),
    Need("norm_pre.weight", "pre_norm"),
    Need("blocks.0.attn.qkv.bias", "qkv_bias"),
    Need("blocks.0.attn.proj.bias", "proj_bias"),
    Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
)

OPEN_CLIP = Dialect(
    name="open_clip",
    signature=("class_embedding", "conv1.weight", "transformer.resblocks.0.ln_1.weight"),
    rules=(
        rule("cls_token", "class_embedding", pattern="d -> 1 1 d"),
        rule("pos_embed", "positional_embedding", pattern="t d -> 1 t d"),
        rule("patch_embed.proj.weight", "conv1.weight"),
        *layer("norm_pre", "ln_pre"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.ln_1"),
        rule("blocks.{i}.attn.qkv.weight", f"{BLOCK}.attn.in_proj_weight"),
        rule("blocks.{i}.attn.qkv.bias", f"{BLOCK}.attn.in_proj_bias"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attn.out_proj"),
        rule("blocks.{i}.ls1.gamma", f"{BLOCK}.ls_1.gamma"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.ln_2"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.c_fc"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.c_proj"),
        rule("blocks.{i}.ls2.gamma", f"{BLOCK}.ls_2.gamma"),
        *layer("fc_norm", "ln_post"),
        rule("head.weight", "proj", pattern="d k -> k d"),
    ),
    conventions={"norm_eps": 1e-5, "pool": "cls"},
    needs=NEEDS,
    prefixes=("visual.", ""),
    unwanted_outside=CLIP_TEXT,
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    norm_place_is_stated=True,
    projects=True,
    sidecar=SIDECAR,
    # towers without a norm before the blocks, such as CLIPA's, are those that average the patches
    conventions_by_shapes=lambda shapes: {} if "norm_pre.weight" in shapes else {"pool": None},
    write_facts=write_facts,
    resize="open_clip",
)

OPENAI_CLIP = replace(
    OPEN_CLIP,
    name="openai-clip",
    signature=(*OPEN_CLIP.signature, *NUMBERS),
    conventions={**OPEN_CLIP.conventions, "act": "quick_gelu"},
    sometimes_unprefixed=NUMBERS,
    unwanted=NUMBERS,
    head_width=64,
)
