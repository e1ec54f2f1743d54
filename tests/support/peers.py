"""Small models of the independent implementations, imported even where torchvision's compiled operators are missing."""

from __future__ import annotations

import functools
import re
import warnings

import torch

from support import torchvision_operators

torchvision_operators.declare()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import open_clip
    import timm
    import torchvision
    import transformers
    import vit_pytorch
    from timm.layers import LayerNorm, RmsNorm, SwiGLU, SwiGLUPacked
    from timm.models.beit import Beit
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    from vit_pytorch.simple_vit import SimpleViT
    from vit_pytorch.simple_vit_with_register_tokens import SimpleViT as SimpleViTWithRegisters

TIMM = {
    "img_size": (32, 48),
    "patch_size": (8, 16),
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 11,
}
RMS = functools.partial(RmsNorm, eps=1e-5)
ARTICLE = {
    "image_size": (32, 48),
    "patch_size": (8, 16),
    "num_classes": 11,
    "dim": 48,
    "depth": 3,
    "heads": 3,
    "dim_head": 16,
    "mlp_dim": 96,
}


def timm_vit(*, norm_eps: float | None = None, **options):
    """timm's VisionTransformer, small."""
    if norm_eps is not None:
        options["norm_layer"] = functools.partial(LayerNorm, eps=norm_eps)
    return VisionTransformer(**{**TIMM, **options})


def timm_distilled(**options):
    """timm's DeiT with a distillation token, small."""
    return VisionTransformerDistilled(**{**TIMM, **options})


def timm_eva(**options):
    """timm's Eva as its DINOv3s set it up, small."""
    dinov3 = {
        "rope_type": "dinov3", "rope_temperature": 100, "use_rot_pos_emb": True, "use_abs_pos_emb": False,
        "rope_rotate_half": True, "num_reg_tokens": 4, "init_values": 1e-5, "use_fc_norm": False, "global_pool": "token",
        "norm_layer": functools.partial(LayerNorm, eps=1e-5),
    }  # fmt: skip
    return Eva(**{**TIMM, **dinov3, **options})


def timm_eva_02(**options):
    """timm's Eva as its EVA-02s set it up, small."""
    eva_02 = {"swiglu_mlp": True, "use_rot_pos_emb": True}
    return Eva(**{**TIMM, **eva_02, **options})


def timm_pe(**options):
    """timm's Eva as its Perception Encoders set it up, small."""
    pe = {
        "attn_type": "rope", "use_rot_pos_emb": True, "rope_grid_indexing": "xy", "rope_grid_offset": 1.0,
        "use_pre_transformer_norm": True, "global_pool": "map", "norm_layer": functools.partial(LayerNorm, eps=1e-5),
    }  # fmt: skip
    return Eva(**{**TIMM, **pe, **options})


def timm_rope_vit(**options):
    """timm's Eva as its models of rope-vit set it up, small."""
    rope_vit = {
        "attn_type": "rope", "use_rot_pos_emb": True, "rope_grid_indexing": "xy", "rope_temperature": 100.0,
        "use_abs_pos_emb": False, "global_pool": "token", "init_values": 1e-5,
    }  # fmt: skip
    return Eva(**{**TIMM, **rope_vit, **options})


def timm_beit(**options):
    """timm's Beit, small."""
    return Beit(**{**TIMM, "use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1, **options})


def timm_without_biases(*layers: str, **options):
    """timm's VisionTransformer with some linear layers replaced by ones without a bias, which its constructor cannot make."""
    model = timm_vit(**options)
    for name, layer in list(model.named_modules()):
        if name.endswith(layers):
            parent, _, last = name.rpartition(".")
            bare = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            setattr(model.get_submodule(parent), last, bare)
    return model


def article_vit(**options):
    """vit-pytorch's ViT, small."""
    return vit_pytorch.ViT(**{**ARTICLE, **options})


def simple_vit(*, registers: int = 0, **options):
    """vit-pytorch's SimpleViT, small."""
    if registers:
        return SimpleViTWithRegisters(**{**ARTICLE, **options}, num_register_tokens=registers)
    return SimpleViT(**{**ARTICLE, **options})


def torchvision_vit(**options):
    """torchvision's VisionTransformer, small and square."""
    from torchvision.models import VisionTransformer as Vit

    return Vit(image_size=32, patch_size=8, num_layers=3, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=11, **options)


def transformers_vit(model: str, config: str, **options):
    """A ViT of transformers, small and square."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    settings = getattr(transformers, config)(**{**sizes, **options})
    return getattr(transformers, model)(settings)


def transformers_joint(kind: str, **options):
    """A CLIPModel or a SiglipModel of transformers, small, and texts as its text encoder takes them: 7 of 16 tokens."""
    tower = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    images = {**tower, "image_size": 32, "patch_size": 8}
    texts = {**tower, "vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 97, "eos_token_id": 98, "pad_token_id": 1}
    width = {"projection_size": 48} if kind == "Siglip" else {}
    config = getattr(transformers, f"{kind}Config")(vision_config=images, text_config={**texts, **width}, **options)
    tokens = torch.randint(3, 97, (7, 16), generator=torch.Generator().manual_seed(5))
    tokens[:, -1] = 98
    return getattr(transformers, f"{kind}Model")(config).eval(), tokens


def text_embeddings(peer, tokens):
    """What the text encoder computes, before it is divided by its norm."""
    found = peer.get_text_features(input_ids=tokens)
    return getattr(found, "pooler_output", found)


def mae_table(peer):
    """The fixed positions of transformers' ViTMAE, made by its own code.

    A fresh 5.23 model has zeros: the patch projection is marked as initialised before the table's turn comes.
    """
    del peer.embeddings.patch_embeddings.projection._is_hf_initialized
    peer.embeddings.initialize_weights()
    return peer.embeddings.position_embeddings.detach().clone()


# transformers' names, as its modules have them since 5.0, and ours
RENAMES = (
    (r"^(dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.", ""),
    (r"^patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^position_embeddings", "pos_embed"),
    (r"^register_tokens", "reg_token"),
    (r"^(encoder\.layer|model\.layer|layers)\.", "blocks."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm", "norm"),
    (r"attention\.o_proj", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"mlp\.up_proj", "mlp.fc1"),
    (r"mlp\.down_proj", "mlp.fc2"),
    (r"^pooler\.dense", "pre_logits"),
    (r"^classifier", "head"),
)


def transformers_state(peer):
    """Its parameters under our names; queries, keys and values joined, gate and value too, without the mask token."""
    found = {}
    for name, p in peer.named_parameters():
        for old, new in RENAMES:
            name = re.sub(old, new, name)  # noqa: PLW2901
        found[name] = p
    found.pop("mask_token", None)
    for name in [name for name in found if name.endswith("attention.q_proj.weight")]:
        block = name.removesuffix("attention.q_proj.weight")
        parts = {kind: [found.pop(f"{block}attention.{x}_proj.{kind}", None) for x in "qkv"] for kind in ("weight", "bias")}
        found[f"{block}attn.qkv.weight"] = torch.cat(parts["weight"])
        q, k, v = parts["bias"]
        found.update(
            {f"{block}attn.q_bias": q, f"{block}attn.v_bias": v} if k is None else {f"{block}attn.qkv.bias": torch.cat((q, k, v))}
        )
        for kind in ("weight", "bias"):
            if f"{block}mlp.gate_proj.{kind}" in found:
                both = found.pop(f"{block}mlp.gate_proj.{kind}"), found[f"{block}mlp.fc1.{kind}"]
                found[f"{block}mlp.fc1.{kind}"] = torch.cat(both)
    return found


__all__ = [
    "SwiGLU",
    "SwiGLUPacked",
    "article_vit",
    "mae_table",
    "open_clip",
    "simple_vit",
    "timm",
    "timm_distilled",
    "timm_eva",
    "timm_vit",
    "timm_without_biases",
    "torchvision",
    "torchvision_vit",
    "transformers",
    "transformers_state",
    "transformers_vit",
    "vit_pytorch",
]
