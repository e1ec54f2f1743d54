"""Architectures that are often taken for a plain ViT: their names in other libraries, and the tensors that tell them apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

GLOB = str.maketrans("", "", "*?[]!")


@dataclass(frozen=True)
class OtherArchitecture:
    """A group of architectures.

    * `names`: a regular expression for the beginning of a name, in lower case and with underscores in place of hyphens.
    * `reason`: how it differs from a plain ViT, as a clause.
    * `key`: a regular expression for a part of a tensor's name that no plain ViT has; empty if the names do not tell.
    """

    names: str
    reason: str
    key: str = ""


# the first match counts, so that special cases come before general ones
OTHERS = (
    OtherArchitecture(
        r"vit_hybrid|vit_\w+_(r\d*_s\d+|resnet)",
        "hybrids put a convolutional network before the encoder",
        r"patch_embed\w*\.backbone\.",
    ),
    OtherArchitecture(
        r"maxx?vit|coatnet|coatnext",
        "MaxViT and CoAtNet mix convolutions with attention in windows",
        r"\.attn_(block|grid)\.|stages\.\d+\.blocks\.\d+\.conv[123]_(1x1|kxk)\.",
    ),
    OtherArchitecture(
        r"vit_s?relpos",
        "its relative position biases are not those of BEiT",
        r"(^|\.)(shared_rel_pos|blocks\.\d+\.attn\.rel_pos)\.\w",
    ),
    OtherArchitecture(r"vit_\w+_rpn", "its norms come after attention and MLP, which its tensors do not show"),
    OtherArchitecture(r"naflexvit_\w+_parfac", "its positions are the sum of those of a row and of a column"),
    OtherArchitecture(r"vit_\w+_mci|mobileclip", "its patches come from a stem of convolutions"),
    OtherArchitecture(r"pixio", "Pixio has eight class tokens"),
    OtherArchitecture(
        r"vit_d(little|wee|pwee)_", "its attention is the difference of two", r"\.attn\.lambda_q1$|\.attn\.sub_norm\.weight$"
    ),
    OtherArchitecture(
        r"vit_pwee_|vit_\w+_parallel",
        "its blocks compute attention and MLP in parallel",
        r"blocks\.\d+\.(in_proj|mlp_out_proj)\.",
    ),
    OtherArchitecture(r"sapiens2?|vit_\w+_sapiens2", "several of its queries have the same keys"),
    OtherArchitecture(r"mvit", "MViT pools tokens within its attention", r"attn\.(pool_[qkv]|norm_[qkv])\."),
    OtherArchitecture(
        r"sam(_|vit|2|$)|mobile_sam|medsam|segment_anything",
        "SAM attends within windows, with relative position biases",
        r"attn\.rel_pos_[hw]$",
    ),
    OtherArchitecture(
        r"swin",
        "Swin attends within shifted windows, in four stages",
        r"(layers|features|stages)\.\d+\.(blocks\.)?\d+\.attn(ention\.self)?\.(relative_position|cpb_mlp|continuous_position)",
    ),
    OtherArchitecture(
        r"tnt_|volo|visformer|(jx_)?nest_|coat_|edgenext|fastvit|vitamin|efficientvit|edgevit|cvt|gcvit|nextvit|poolformer|"
        r"metaformer|caformer|convformer|swiftformer|repvit|mambaout|nat_|dinat_|sequencer",
        "it has stages, or other layers than a plain ViT's",
        r"\.token_mixer\.|\.e_mhsa\.|\.factoratt_crpe|(^|\.)levels\.\d+\.transformer_encoder\.|\.norm_mlp_in\.|\.xca\.|"
        r"(^|\.)(network\.|stage)\d+\.\d+\.attn\.",
    ),
    OtherArchitecture(r"hiera|sam2", "Hiera pools tokens between its stages", r"(^|\.)blocks\.\d+\.proj\.(weight|bias)$"),
    OtherArchitecture(
        r"mobilevit",
        "MobileViT mixes convolutions with attention",
        r"stages\.\d+\.\d+\.transformer\.\d+\.|mobilevit(v2)?\.encoder\.",
    ),
    OtherArchitecture(r"levit|tiny_?vit|efficientformer", "its attention has learned biases, in stages", r"\.attention_biases$"),
    OtherArchitecture(
        r"cait", "CaiT mixes attention heads and has blocks for the class token alone", r"(^|\.)blocks_token_only\."
    ),
    OtherArchitecture(r"xcit", "XCiT attends over channels", r"(^|\.)cls_attn_blocks\."),
    OtherArchitecture(
        r"pvt|twins|segformer|mit_b\d",
        "its attention reads tokens at a reduced resolution, in stages",
        r"\.attn\.sr\.|\.attention\.self\.(sr|sequence_reduction)\.",
    ),
    OtherArchitecture(r"davit|florence", "DaViT attends over windows and over channels, in stages", r"\.cpe[12]\.proj\."),
    OtherArchitecture(r"focalnet", "FocalNet has focal modulation in place of attention", r"\.modulation\.focal_layers\."),
    OtherArchitecture(r"convit", "ConViT has gated positional attention", r"\.attn\.gating_param$"),
    OtherArchitecture(r"crossvit", "CrossViT has two branches with patches of two sizes", r"(^|\.)cls_token_\d$"),
    OtherArchitecture(
        r"mixer|gmixer|gmlp|resmlp",
        "it mixes tokens with an MLP and has no attention",
        r"\.(mlp_tokens|linear_tokens|mlp_channels)\.",
    ),
    OtherArchitecture(
        r"convnext|(\w+_)?(resne(t|st|xt)\w*|efficientnet|mobilenet|regnet|densenet|inception|xception|vgg|mnasnet|ghostnet)|"
        r"(seresne|regne|resnetv2|bit_|dla\d|dpn\d|rexnet|nfnet|dm_nfnet|eca_nfnet|hrnet|lcnet|mixnet|darknet|cspnet|hgnet|"
        r"van_|convmixer|alexnet|squeezenet|shufflenet|googlenet)",
        "it is a convolutional network",
        r"\.running_mean$|(^|\.)stages\.\d+\.(\d+|blocks\.\d+|layers\.\d+)\.(conv_dw|dwconv)\.|(^|\.)conv_stem\.weight$",
    ),
)


def reason_by_name(name: str) -> str | None:
    """Return why the model of this name is not a plain ViT, or None if the name is not known to be another architecture.

    `name` may be a name of timm, a repository or a glob pattern.
    """
    text = name.rpartition("/")[2].translate(GLOB).lower().replace("-", "_")
    return next((other.reason for other in OTHERS if re.match(other.names, text)), None)


def reason_by_keys(keys: Iterable[str]) -> str | None:
    """Return why a checkpoint with these names of tensors is not a plain ViT's, or None if they do not tell."""
    keys = list(keys)
    for other in OTHERS:
        if other.key and any(re.search(other.key, key) for key in keys):
            return other.reason
    return None
