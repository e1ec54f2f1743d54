"""timm's names of plain Vision Transformers, with what the code behind a name states and its tensors do not show.

Source: the registry of timm 1.0.31, models/vision_transformer.py, deit.py, eva.py and naflexvit.py. Names that are not here are
models that compute something else: factorised positions, parallel blocks, differential attention, queries with shared keys,
other patch projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Group:
    """Names with the same settings.

    * `class_`: timm's class.
    * `pool`: timm's word for it.
    * `include_prefix`: the class token and registers are pooled too.
    * `more`: other fields of the spec.
    """

    class_: str
    norm_eps: float
    act: str
    mlp: str
    pool: str
    include_prefix: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


EVA02 = {"pos": "learned+rope", "rope": "eva02", "rope_grid": (16, 16)}
DINOV3 = {"pos": "rope", "rope": "dinov3"}
PE = {"pos": "learned+rope", "rope": "pe"}


# a group, and its names by their number of heads
GROUPS: tuple[tuple[Group, dict[int, str]], ...] = (
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu", mlp="plain", pool="token"),
        {
            2: "test_vit",
            3: "deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 vit_tiny_patch16_224 vit_tiny_patch16_384",
            6: (
                "deit3_small_patch16_224 deit3_small_patch16_384 deit_small_distilled_patch16_224 deit_small_patch16_224 "
                "flexivit_small vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_small_patch16_224 "
                "vit_small_patch16_36x1_224 vit_small_patch16_384 vit_small_patch32_224 vit_small_patch32_384 "
                "vit_small_patch8_224"
            ),
            8: "deit3_medium_patch16_224",
            12: (
                "deit3_base_patch16_224 deit3_base_patch16_384 deit_base_distilled_patch16_224 deit_base_distilled_patch16_384 "
                "deit_base_patch16_224 deit_base_patch16_384 flexivit_base vit_base_patch14_dinov2 vit_base_patch14_reg1_tipsv2 "
                "vit_base_patch14_reg4_dinov2 vit_base_patch16_224 vit_base_patch16_224_miil vit_base_patch16_384 "
                "vit_base_patch16_radio_v3 vit_base_patch32_224 vit_base_patch32_384 vit_base_patch8_224"
            ),
            14: "vit_base_patch16_plus_240 vit_base_patch32_plus_256",
            16: (
                "deit3_huge_patch14_224 deit3_large_patch16_224 deit3_large_patch16_384 flexivit_large vit_giant_patch14_224 "
                "vit_gigantic_patch14_224 vit_huge_patch14_224 vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 "
                "vit_intern300m_patch14_448 vit_large_patch14_224 vit_large_patch14_dinov2 vit_large_patch14_reg1_tipsv2 "
                "vit_large_patch14_reg4_dinov2 vit_large_patch16_224 vit_large_patch16_384 vit_large_patch16_radio_v3 "
                "vit_large_patch32_224 vit_large_patch32_384 vit_so400m_patch14_reg1_tipsv2 vit_so400m_patch16_radio_v4"
            ),
            24: "vit_giant_patch16_radio_v3",
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu", mlp="plain", pool="avg"),
        {
            2: "test_vit2",
            4: "vit_wee_patch16_reg1_gap_256",
            5: "vit_little_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256",
            8: (
                "vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384 "
                "vit_medium_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256 "
                "vit_mediumd_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_384"
            ),
            10: (
                "vit_betwixt_patch16_gap_256 vit_betwixt_patch16_reg1_gap_256 vit_betwixt_patch16_reg4_gap_256 "
                "vit_betwixt_patch16_reg4_gap_384"
            ),
            12: (
                "vit_base_patch16_reg4_gap_256 vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 "
                "vit_base_patch16_siglip_gap_384 vit_base_patch16_siglip_gap_512"
            ),
            13: "vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384 vit_so150m2_patch16_reg1_gap_448",
            14: "vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384",
            16: (
                "eva_large_patch14_196 eva_large_patch14_336 vit_base_patch16_gap_224 vit_giant_patch16_gap_224 "
                "vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_large_patch16_siglip_gap_256 "
                "vit_large_patch16_siglip_gap_384 vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 "
                "vit_so400m_patch14_siglip_gap_384 vit_so400m_patch14_siglip_gap_448 vit_so400m_patch14_siglip_gap_896"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu", mlp="plain", pool="map", include_prefix=True),
        {
            3: "test_vit3",
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-5, act="gelu", mlp="plain", pool="token"),
        {
            4: "vit_xsmall_patch16_clip_224",
            8: "vit_medium_patch16_clip_224 vit_medium_patch32_clip_224",
            10: "vit_betwixt_patch32_clip_224",
            12: (
                "vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_clip_224 vit_base_patch32_clip_256 "
                "vit_base_patch32_clip_384 vit_base_patch32_clip_448"
            ),
            14: "vit_base_patch16_plus_clip_240",
            16: (
                "vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378 "
                "vit_huge_patch14_clip_224 vit_huge_patch14_clip_336 vit_huge_patch14_clip_378 "
                "vit_large_patch14_clip_224 vit_large_patch14_clip_336"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-5, act="quick_gelu", mlp="plain", pool="token"),
        {
            12: "vit_base_patch16_clip_quickgelu_224 vit_base_patch32_clip_quickgelu_224",
            16: (
                "vit_gigantic_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378 "
                "vit_large_patch14_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_336"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu", mlp="plain", pool="map"),
        {
            12: "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 vit_base_patch16_siglip_512",
            14: "vit_so150m_patch16_reg4_map_256",
            16: (
                "vit_large_patch16_siglip_256 vit_large_patch16_siglip_384 vit_so400m_patch14_siglip_224 "
                "vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu_tanh", mlp="plain", pool="map"),
        {
            12: "vit_base_patch32_siglip_256",
            16: (
                "vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384 vit_large_patch16_siglip_512 "
                "vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="gelu_tanh", mlp="plain", pool="avg"),
        {
            12: "vit_base_patch32_siglip_gap_256",
            16: (
                "vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384 vit_large_patch16_siglip_gap_512 "
                "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512"
            ),
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-6, act="silu", mlp="swiglu", pool="token"),
        {
            24: "vit_giant_patch14_dinov2 vit_giant_patch14_reg1_tipsv2 vit_giant_patch14_reg4_dinov2",
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-5, act="silu", mlp="swiglu", pool="avg", more={"norm": "rms"}),
        {
            8: "aimv2_large_patch14_224 aimv2_large_patch14_336 aimv2_large_patch14_448",
            12: "aimv2_huge_patch14_224 aimv2_huge_patch14_336 aimv2_huge_patch14_448",
            16: "aimv2_1b_patch14_224 aimv2_1b_patch14_336 aimv2_1b_patch14_448",
            24: "aimv2_3b_patch14_224 aimv2_3b_patch14_336 aimv2_3b_patch14_448",
        },
    ),
    (
        Group(class_="VisionTransformer", norm_eps=1e-5, act="gelu", mlp="plain", pool="avg"),
        {
            12: "beit3_base_patch16_224",
            16: "beit3_large_patch16_224 beit3_giant_patch14_224 beit3_giant_patch14_336",
        },
    ),
    (
        Group(class_="Beit", norm_eps=1e-6, act="gelu", mlp="plain", pool="avg"),
        {
            12: "beit_base_patch16_224 beit_base_patch16_384 beitv2_base_patch16_224",
            16: "beit_large_patch16_224 beit_large_patch16_384 beit_large_patch16_512 beitv2_large_patch16_224",
        },
    ),
    (
        Group(class_="NaFlexVit", norm_eps=1e-6, act="gelu", mlp="plain", pool="avg"),
        {
            12: "naflexvit_base_patch16_gap naflexvit_base_patch16_par_gap",
            13: "naflexvit_so150m2_patch16_reg1_gap",
        },
    ),
    (
        Group(class_="NaFlexVit", norm_eps=1e-6, act="gelu", mlp="plain", pool="map"),
        {
            12: "naflexvit_base_patch16_map",
            13: "naflexvit_so150m2_patch16_reg1_map",
        },
    ),
    (
        Group(class_="NaFlexVit", norm_eps=1e-6, act="gelu", mlp="plain", pool="token"),
        {
            12: "naflexvit_base_patch16_radio_v3",
            16: (
                "naflexvit_huge_patch16_radio_v3 naflexvit_huge_patch16_radio_v4 naflexvit_large_patch16_radio_v3 "
                "naflexvit_so400m_patch16_radio_v4"
            ),
            24: "naflexvit_giant_patch16_radio_v3",
        },
    ),
    (
        Group(class_="NaFlexVit", norm_eps=1e-6, act="gelu_tanh", mlp="plain", pool="map"),
        {
            12: "naflexvit_base_patch16_siglip",
            16: "naflexvit_so400m_patch16_siglip",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-5, act="silu", mlp="swiglu", pool="avg", more=DINOV3),
        {
            6: "vit_small_plus_patch16_dinov3 vit_small_plus_patch16_dinov3_qkvb",
            20: "vit_huge_plus_patch16_dinov3 vit_huge_plus_patch16_dinov3_qkvb",
            32: "vit_7b_patch16_dinov3",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-5, act="gelu", mlp="plain", pool="avg", more=DINOV3),
        {
            3: "vit_tiny_patch16_dinov3_qkvb",
            6: "vit_small_patch16_dinov3 vit_small_patch16_dinov3_qkvb",
            12: "vit_base_patch16_dinov3 vit_base_patch16_dinov3_qkvb",
            16: "vit_large_patch16_dinov3 vit_large_patch16_dinov3_qkvb",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-5, act="gelu", mlp="plain", pool="token", more=DINOV3),
        {
            6: "vit_small_patch16_lingbot",
            12: "vit_base_patch16_lingbot",
            16: "vit_large_patch16_lingbot",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-5, act="silu", mlp="swiglu", pool="token", more=DINOV3),
        {
            24: "vit_giant_patch16_lingbot",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="gelu", mlp="plain", pool="avg", more={"pos": "learned", "block_norm": "pre"}),
        {
            16: "eva_giant_patch14_224 eva_giant_patch14_336 eva_giant_patch14_560",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="gelu", mlp="plain", pool="token", more={"pos": "learned", "block_norm": "pre"}),
        {
            16: "eva_giant_patch14_clip_224",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="gelu", mlp="plain", pool="token", more={"pos": "learned", "block_norm": "post"}),
        {
            16: "eva02_enormous_patch14_clip_224",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="silu", mlp="swiglu", pool="avg", more=EVA02),
        {
            3: "eva02_tiny_patch14_224 eva02_tiny_patch14_336",
            6: "eva02_small_patch14_224 eva02_small_patch14_336",
            12: "eva02_base_patch14_224 eva02_base_patch14_448",
            16: "eva02_large_patch14_224 eva02_large_patch14_448",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="silu", mlp="swiglu", pool="token", more=EVA02),
        {
            12: "eva02_base_patch16_clip_224",
            16: "eva02_large_patch14_clip_224 eva02_large_patch14_clip_336",
        },
    ),
    (
        Group(class_="Eva", norm_eps=1e-6, act="gelu", mlp="plain", pool="avg", more={**EVA02, "pos": "rope"}),
        {
            8: "vit_medium_patch16_rope_reg1_gap_256 vit_mediumd_patch16_rope_reg1_gap_256",
            10: "vit_betwixt_patch16_rope_reg4_gap_256",
            12: "vit_base_patch16_rope_reg1_gap_256",
        },
    ),
    *(
        (
            Group(
                class_="Eva", norm_eps=1e-5, act="gelu", mlp="plain", pool="map", include_prefix=True,
                more={**PE, "rope_grid": (side, side), "pool_heads": 8},
            ),
            names,
        )
        for side, names in {
            14: {12: "vit_pe_core_base_patch16_224"},
            24: {
                3: "vit_pe_core_tiny_patch16_384",
                6: "vit_pe_core_small_patch16_384",
                16: "vit_pe_core_large_patch14_336",
            },
            32: {16: "vit_pe_core_gigantic_patch14_448"},
        }.items()
    ),
    (
        Group(class_="Eva", norm_eps=1e-5, act="gelu", mlp="plain", pool="avg", more={**PE, "rope_grid": (32, 32)}),
        {
            3: "vit_pe_spatial_tiny_patch16_512",
            6: "vit_pe_spatial_small_patch16_512",
            12: "vit_pe_spatial_base_patch16_512",
            16: (
                "vit_pe_lang_gigantic_patch14_448 vit_pe_lang_large_patch14_448 vit_pe_spatial_gigantic_patch14_448 "
                "vit_pe_spatial_large_patch14_448"
            ),
        },
    ),
    *(
        (
            Group(class_="Eva", norm_eps=1e-6, act="gelu", mlp="plain", pool="token", more={"pos": pos, "rope": rope}),
            {
                6: f"vit_small_patch16_rope_{name}224",
                12: f"vit_base_patch16_rope_{name}224",
                16: f"vit_large_patch16_rope_{name}224",
            },
        )
        for name, pos, rope in (
            ("", "rope", "axial"), ("ape_", "learned+rope", "axial"), ("mixed_", "rope", "mixed"),
            ("mixed_ape_", "learned+rope", "mixed"),
        )
    ),
)  # fmt: skip

# names of timm before 0.9, which had the training set in the name, and the ends of names that stood for it
OLD = {
    "vit_base_patch32_224_clip_laion2b": "vit_base_patch32_clip_224",
    "vit_large_patch14_224_clip_laion2b": "vit_large_patch14_clip_224",
    "vit_huge_patch14_224_clip_laion2b": "vit_huge_patch14_clip_224",
    "vit_giant_patch14_224_clip_laion2b": "vit_giant_patch14_clip_224",
}
OLD_ENDS = ("_in21k", "_sam", "_dino", "_in21ft1k")


def find(name: str) -> tuple[Group, int] | None:
    """The group and the number of heads of a name, with or without a tag; None for a model that is not a plain ViT."""
    name = name.partition(".")[0]
    name = OLD.get(name, name)
    for end in OLD_ENDS:
        name = name.removesuffix(end)
    for group, by_heads in GROUPS:
        for heads, names in by_heads.items():
            if name in names.split():
                return group, heads
    return None
