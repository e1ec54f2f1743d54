"""Tests of every family, small but with its own library's options, in torch and in ONNX."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vit_zoo
from support import peers
from support.models import noise
from support.onnx_outputs import OPSETS, TOLERANCE, onnx_outputs, relative
from vit_zoo.errors import CheckFailed, InputError, NotRepresentable
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.load import model_of
from vit_zoo.model import positions
from vit_zoo.model.spec import ViTSpec
from vit_zoo.model.vit import ViT


def timm_named(name, patch, **options):
    """timm's model of this name with 48 dimensions, three heads, two blocks and two by three patches."""
    small = {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": (2 * patch, 3 * patch), "num_classes": 11}
    return lambda: peers.timm.create_model(name, **{**small, **options})


def without_head_bias(make):
    """A model with a projection in place of a classifier, as at the end of CLIP's towers."""

    def made():
        model = make()
        model.head = torch.nn.Linear(model.head.in_features, model.head.out_features, bias=False)
        return model

    return made


# every form that a name of the registry has, and some that only other libraries name
FAMILIES = {
    "ViT and AugReg": (timm_named("vit_base_patch16_224", 16), {}),
    "ViT, g": (timm_named("vit_giant_patch14_224", 14), {}),
    "ViT, registers, mean": (timm_named("vit_base_patch16_reg4_gap_256", 16), {}),
    "ViT-21k with its representation": (lambda: peers.torchvision_vit(representation_size=48), {}),
    "torchvision": (peers.torchvision_vit, {}),
    "SBB": (timm_named("vit_medium_patch16_reg4_gap_256", 16), {}),
    "SBB, So150m": (timm_named("vit_so150m_patch16_reg4_gap_256", 16), {}),
    "SBB, So150m2": (timm_named("vit_so150m2_patch16_reg1_gap_256", 16), {}),
    "SW": (timm_named("vit_medium_patch16_gap_256", 16), {}),
    "MIIL": (timm_named("vit_base_patch16_224_miil", 16), {}),
    "EVA-L": (timm_named("eva_large_patch14_196", 14), {}),
    "EVA-g": (timm_named("eva_giant_patch14_224", 14), {}),
    "EVA-02, Ti and S": (timm_named("eva02_tiny_patch14_336", 14), {}),
    "EVA-02, B and L": (timm_named("eva02_base_patch14_448", 14), {}),
    "EVA-CLIP, B and L": (timm_named("eva02_large_patch14_clip_224", 14), {}),
    "EVA-CLIP, g": (timm_named("eva_giant_patch14_clip_224", 14), {}),
    "EVA-CLIP, E": (timm_named("eva02_enormous_patch14_clip_224", 14), {}),
    "PE core": (timm_named("vit_pe_core_base_patch16_224", 16, attn_pool_num_heads=4, ref_feat_shape=(3, 4)), {}),
    "PE core, G": (timm_named("vit_pe_core_gigantic_patch14_448", 14, attn_pool_num_heads=8), {}),
    "PE language, L": (timm_named("vit_pe_lang_large_patch14_448", 14, num_classes=0), {}),
    "PE language, G": (timm_named("vit_pe_lang_gigantic_patch14_448", 14, num_classes=0), {}),
    "PE spatial": (timm_named("vit_pe_spatial_base_patch16_512", 16, num_classes=0), {}),
    "AIMv2": (timm_named("aimv2_large_patch14_224", 14, num_classes=0), {}),
    "BEiT": (timm_named("beit_base_patch16_224", 16), {}),
    "BEiT, shared biases": (timm_named("beit_base_patch16_224", 16, use_rel_pos_bias=False, use_shared_rel_pos_bias=True), {}),
    "BEiT-3": (timm_named("beit3_base_patch16_224", 16), {}),
    "RoPE-ViT, axial": (timm_named("vit_small_patch16_rope_224", 16), {}),
    "RoPE-ViT, axial, learned positions": (timm_named("vit_small_patch16_rope_ape_224", 16), {}),
    "RoPE-ViT, mixed": (timm_named("vit_small_patch16_rope_mixed_224", 16), {}),
    "RoPE-ViT, mixed, learned positions": (timm_named("vit_small_patch16_rope_mixed_ape_224", 16), {}),
    "SBB, rotary": (timm_named("vit_medium_patch16_rope_reg1_gap_256", 16), {}),
    "SBB, rotary, no biases": (timm_named("vit_mediumd_patch16_rope_reg1_gap_256", 16), {}),
    "TIPSv2": (timm_named("vit_base_patch14_reg1_tipsv2", 14, num_classes=0), {}),
    "TIPSv2, giant": (timm_named("vit_giant_patch14_reg1_tipsv2", 14, num_classes=0), {}),
    "C-RADIO": (timm_named("vit_huge_patch16_radio_v4", 16, num_classes=0), {}),
    "C-RADIO, v3 B and L": (timm_named("vit_base_patch16_radio_v3", 16, num_classes=0), {}),
    "InternViT": (timm_named("vit_intern300m_patch14_448", 14, num_classes=0), {}),
    "DeiT": (timm_named("deit_base_patch16_224", 16), {}),
    "DeiT, distilled": (timm_named("deit_base_distilled_patch16_224", 16), {}),
    "DeiT-3": (timm_named("deit3_base_patch16_224", 16), {}),
    "MAE, fine-tuned": (timm_named("vit_base_patch16_224", 16, global_pool="avg"), {}),
    "DINO": (timm_named("vit_small_patch8_224", 8, num_classes=0), {}),
    "DINOv2": (timm_named("vit_small_patch14_dinov2", 14, num_classes=0), {}),
    "DINOv2, registers": (timm_named("vit_small_patch14_reg4_dinov2", 14, num_classes=0), {}),
    "DINOv2, giant": (timm_named("vit_giant_patch14_dinov2", 14, num_classes=0), {}),
    "DINOv2, giant, registers": (timm_named("vit_giant_patch14_reg4_dinov2", 14, num_classes=0), {}),
    "DINOv3 as timm pools it": (timm_named("vit_small_patch16_dinov3", 16), {}),
    "DINOv3": (timm_named("vit_base_patch16_dinov3_qkvb", 16, global_pool="token", num_classes=0), {}),
    "DINOv3, Ti of EUPE": (timm_named("vit_tiny_patch16_dinov3_qkvb", 16, global_pool="token", num_classes=0), {}),
    "LingBot-Vision, giant": (timm_named("vit_giant_patch16_lingbot", 16, num_classes=0), {}),
    "DINOv3, S+ and H+": (timm_named("vit_huge_plus_patch16_dinov3_qkvb", 16, global_pool="token", num_classes=0), {}),
    "DINOv3, 7B": (timm_named("vit_7b_patch16_dinov3", 16, global_pool="token", num_classes=0), {}),
    "CLIP, OpenAI's": (without_head_bias(timm_named("vit_base_patch16_clip_quickgelu_224", 16)), {}),
    "CLIP, open_clip's g": (without_head_bias(timm_named("vit_giant_patch14_clip_224", 14)), {}),
    "SigLIP, exact GELU": (timm_named("vit_base_patch16_siglip_224", 16), {}),
    "SigLIP": (timm_named("vit_base_patch32_siglip_256", 32, num_classes=0), {}),
    "SigLIP, So400m": (timm_named("vit_so400m_patch16_siglip_256", 16, mlp_ratio=4304 / 1152, num_classes=0), {}),
    "SigLIP, mean": (timm_named("vit_giantopt_patch16_siglip_gap_256", 16, num_classes=0), {}),
    "I-JEPA": (timm_named("vit_huge_patch14_gap_224", 14, num_classes=0), {}),
    "FlexiViT": (timm_named("flexivit_small", 16), {}),
    "SimpleViT": (peers.simple_vit, {}),
    "SimpleViT, registers": (lambda: peers.simple_vit(registers=4), {}),
    "vit-pytorch": (peers.article_vit, {"image_size": (32, 48)}),
    "vit-pytorch, mean": (lambda: peers.article_vit(pool="mean"), {"image_size": (32, 48)}),
}


def form(spec):
    """A spec without its sizes and without fields that have no effect in eval mode."""
    sizes = {
        "image_size", "patch_size", "dim", "depth", "heads", "dim_head", "mlp_dim", "pool_heads", "pool_mlp_dim", "rope_grid",
        "dropout", "emb_dropout", "drop_path",
    }  # fmt: skip
    fields = {name: value for name, value in spec.model_dump().items() if name not in sizes}
    counts = {name: bool(fields[name]) for name in ("num_classes", "registers", "representation")}
    covers = fields["pos_covers"] if spec.prefix_tokens else "patches"
    return tuple({**fields, **counts, "pos_covers": covers}.items())


def test_every_registered_combination_of_options_has_a_peer():
    """A new family, or a size of one with another option, fails here until a peer runs it."""
    known = {form(vit_zoo.load(make(), **facts).spec) for make, facts in FAMILIES.values()}
    assert [name for name in vit_zoo.list_models() if form(vit_zoo.get_spec(name)) not in known] == []


def peer_and_ours(family):
    make, facts = FAMILIES[family]
    peer = noise(make(), scale=0.15)
    return peer, vit_zoo.load(peer, **facts).eval()


def images_for(spec):
    return torch.randn(3, spec.channels, *spec.image_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_against_the_peer(family, tmp_path):
    """Measured: at most 1.4e-6 in torch and 2.2e-6 in onnxruntime; the exact GELU in place of the tanh form makes 1e-4."""
    peer, ours = peer_and_ours(family)
    images = images_for(ours.spec)
    with torch.inference_mode():
        wanted, found = peer(images), ours(images)
    assert relative(found, wanted) < TOLERANCE
    for opset in OPSETS:
        assert relative(onnx_outputs(ours, images, opset, tmp_path)[ours.spec.output], wanted) < TOLERANCE, opset
    assert ours.spec.params == sum(p.numel() for p in peer.parameters())
    assert ours.spec.shapes() == {name: tuple(p.shape) for name, p in ours.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_matters(family):
    """Replacing any one tensor makes the comparison above fail: none is unused, and none is read in place of another."""
    peer, ours = peer_and_ours(family)
    images = images_for(ours.spec)
    with torch.inference_mode():
        wanted = peer(images)
        for name, p in ours.named_parameters():
            right = p.clone()
            p.copy_(right + 0.1 * torch.randn(p.shape))
            assert relative(ours(images), wanted) > TOLERANCE, name
            p.copy_(right)
        assert relative(ours(images), wanted) < TOLERANCE


WRONG = {
    "DINOv3": [{"pos": "none"}, {"norm_eps": 1e-2}],
    "DINOv3, 7B": [{"pos": "none"}, {"act": "gelu"}],
    "DINOv2, giant": [{"act": "gelu"}, {"act": "quick_gelu"}],
    "SimpleViT": [{"pos": "none"}, {"pos": "sincos_mae"}, {"act": "gelu_tanh"}],
    "SigLIP": [{"act": "gelu"}],
    "CLIP, OpenAI's": [{"act": "gelu"}, {"pool": "mean", "pool_tokens": "all"}],
    "ViT-21k with its representation": [{"heads": 6, "dim_head": 8}],
}


@pytest.mark.parametrize("family", WRONG)
def test_a_wrong_convention_is_detected(family, tmp_path):
    make, facts = FAMILIES[family]
    peer = noise(make(), scale=0.15)
    images = images_for(vit_zoo.load(peer, **facts).spec)
    with torch.inference_mode():
        wanted = peer(images)
    for wrong in WRONG[family]:
        with pytest.raises(CheckFailed):
            vit_zoo.load(peer, **{**facts, **wrong})
        ours = model_of(of_module(peer, check=False, **{**facts, **wrong})).eval()
        assert relative(onnx_outputs(ours, images, 20, tmp_path)[ours.spec.output], wanted) > TOLERANCE, wrong


def test_another_rotation_is_detected(monkeypatch):
    peer, _ = peer_and_ours("DINOv3")
    monkeypatch.setitem(positions.ROTATIONS, "dinov3", positions.Rotation(90.0, centred=True, columns_first=False))
    with pytest.raises(CheckFailed, match="first difference in block 0"):
        vit_zoo.load(peer)
    ours = model_of(of_module(peer, check=False)).eval()
    images = images_for(ours.spec)
    with torch.inference_mode():
        assert relative(ours(images), peer(images)) > TOLERANCE


UNSUPPORTED_ROTATIONS = [
    ({"rope_temperature": 10}, "temperature of its rotation is 10"),
    ({"rope_type": "cat", "rope_rotate_half": False, "rope_temperature": 10}, "temperature 10 and offset 0"),
    ({"rope_type": "cat", "rope_rotate_half": False, "rope_grid_offset": 1.0, "rope_temperature": 10_000}, "offset 1"),
    ({"rope_type": "cat", "rope_temperature": 10_000}, "rotate_half of its rotation is True"),
    ({"rope_type": "mrope"}, "its rotation is RotaryEmbeddingMRope"),
]


@pytest.mark.parametrize(("options", "message"), UNSUPPORTED_ROTATIONS)
def test_other_rotations_are_refused(options, message):
    sections = {"rope_mrope_section": (2, 3, 3)} if options.get("rope_type") == "mrope" else {}
    with pytest.raises(NotRepresentable, match=message):
        vit_zoo.load(peers.timm_eva(**options, **sections))


def test_fixed_positions_match_the_peers():
    """At the sizes of real models, where rounding is visible: the peers compute in float32, MAE in float64."""
    from vit_pytorch.simple_vit import posemb_sincos_2d

    fields = {"pos_covers": "patches", "image_size": (224, 256)}
    simple = positions.tables(vit_zoo.get_spec("vit_b16", pos="sincos_moco", **fields))["pos_embed"]
    np.testing.assert_allclose(simple[0], posemb_sincos_2d(14, 16, 768), rtol=0, atol=2e-6)  # angles up to 16
    peer = peers.transformers_vit("ViTMAEModel", "ViTMAEConfig", hidden_size=768, image_size=224, patch_size=16)
    mae = positions.tables(vit_zoo.get_spec("vit_b16", pos="sincos_mae", pos_covers="patches"))["pos_embed"]
    np.testing.assert_array_equal(mae, peers.mae_table(peer)[:, 1:])
    spec = vit_zoo.get_spec("vit_b16", pos="rope", **fields)
    rope = positions.tables(spec)
    theirs = peers.timm_eva(embed_dim=768, num_heads=12, img_size=(224, 256), patch_size=16, depth=1).rope.get_embed()
    sin, cos = theirs.chunk(2, dim=-1)
    assert rope["rope_cos"].shape == (1 + 14 * 16, 1, 32)
    np.testing.assert_allclose(rope["rope_cos"][1:, 0], cos[:, :32], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rope["rope_sin"][1:, 0], sin[:, :32], rtol=0, atol=1e-6)
    assert (rope["rope_cos"][0] == 1).all()
    assert (rope["rope_sin"][0] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_macs_match_torchs_count(family):
    """On the meta device, where attention is counted as its two products; torch does not count its fused kernel for CPUs."""
    make, facts = FAMILIES[family]
    peer = make().eval()
    ours = vit_zoo.load(peer, **facts)
    for model in (peer.to("meta"), ViT.empty(ours.config).train()):  # in eval mode ours leaves out rows that nobody reads
        if hasattr(model, "pos_embedding") and not isinstance(model.pos_embedding, torch.nn.Parameter):
            model.pos_embedding = model.pos_embedding.to("meta")
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *ours.spec.image_size, device="meta"))
        assert counter.get_total_flops() == 2 * ours.spec.macs


@pytest.mark.parametrize("family", ["DINOv3", "SimpleViT"])
def test_computed_tables_follow_the_model(family, folder):
    """They are in no file, and right after every way to get a model: loaded, copied, emptied and filled, cast, trained."""
    _, ours = peer_and_ours(family)
    images = images_for(ours.spec)
    with torch.inference_mode():
        wanted = ours(images)
    assert not set(positions.tables(ours.spec)) & set(ours.state_dict())
    vit_zoo.save(ours, "saved")
    emptied = copy.deepcopy(ours).to_empty(device="cpu")
    emptied.load_state_dict(ours.state_dict())
    for model in (vit_zoo.load("saved"), copy.deepcopy(ours), emptied):
        with torch.inference_mode():
            assert relative(model(images), wanted) < 1e-6
    with torch.inference_mode():
        half = vit_zoo.load("saved", dtype=torch.bfloat16)(images.bfloat16())
    assert relative(half.float(), wanted) < 0.05
    (folder / "exported").mkdir()
    reports = [done.report for done in vit_zoo.export(ours, ["onnx", "torchscript", "pt2"], out="exported")]
    assert all(report.ok for report in reports)


CONTRADICTIONS = [
    ({"dist_token": True, "pool": "mean"}, "dist_token needs"),
    ({"dist_token": True, "final_norm": "after_pool"}, "dist_token needs"),
    ({"dist_token": True, "pos_covers": "class"}, "pos_covers 'all' or 'patches'"),
    ({"dist_token": True, "representation": 8}, "dist_token adds a second"),
    ({"pos": "rope"}, "needs pos_covers 'patches'"),
    ({"pos": "rope", "pos_covers": "patches", "dim_head": 18}, "dim_head to be a multiple of 4, got 18"),
    ({"pos": "sincos_moco", "pos_covers": "patches", "dim": 4}, "needs a dim of 8, 12, 16"),
    ({"representation": 8, "pool": "none", "num_classes": 0}, "representation needs a pool"),
    ({"projection": 8}, "projection needs cosine_head"),
    ({"cosine_head": True, "num_classes": 0}, "cosine_head needs classes"),
    ({"cosine_head": True, "dist_token": True}, "cosine_head needs a single head"),
    ({"mlp": "swiglu", "pool": "map", "pool_tokens": "all"}, "needs mlp 'plain'"),
    ({"rope": "eva02"}, "rope 'eva02' needs pos 'rope' or 'learned[+]rope'"),
    ({"pos": "learned+rope", "rope": "axial", "rope_grid": 14}, "with rope 'eva02' or 'pe'"),
    ({"relative_bias": "blocks", "registers": 1}, "relative_bias needs class_token, and no other tokens"),
    ({"relative_bias": "shared", "image_size": 2048}, "16,385 tokens; the limit is 4,097 with relative_bias"),
    ({"pool_heads": 8}, "pool_heads needs pool 'map'"),
    ({"pool_mlp_dim": 8}, "pool_mlp_dim needs pool 'map'"),
    ({"pool": "map", "pool_tokens": "all", "pool_heads": 7}, "pool_heads to divide dim, got 7 and 768"),
    ({"pool": "cls+mean"}, "needs pool_tokens 'patches'"),
    ({"pool": "cls+mean", "pool_tokens": "patches", "final_norm": "after_pool"}, "pool 'cls[+]mean' needs final_norm"),
    ({"pool": "cls+mean", "pool_tokens": "patches", "class_token": False}, "pool 'cls[+]mean' needs class_token"),
]


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS)
def test_contradictory_fields_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        vit_zoo.get_spec("vit_b16", **fields)


def test_fields_of_some_families_only_have_defaults():
    """Files written before these fields existed keep their meaning."""
    fields = vit_zoo.get_spec("vit_b16").model_dump()
    newer = {"dist_token": False, "mlp": "plain", "qk_norm": False, "representation": 0}
    newer |= {"projection": 0, "cosine_head": False, "rope": "dinov3", "rope_grid": None, "relative_bias": "none"}
    newer |= {"norm": "layer", "block_norm": "pre", "attn_norm": False, "mlp_norm": False, "pool_heads": 0, "pool_mlp_dim": 0}
    assert {name: fields.pop(name) for name in newer} == newer
    assert ViTSpec.parse(fields) == vit_zoo.get_spec("vit_b16")
