"""Tests of files as their authors release them, and of transformers' classes, of families from EVA-02 to TIPSv2.

The oracle of a release is timm's own converter: it must read the same file, and its model compute the same.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

import pytest
import timm.models.beit
import timm.models.eva
import timm.models.vision_transformer
import torch
import transformers

import vit_zoo
from support import peers
from support.models import noise
from support.onnx_outputs import TOLERANCE, relative
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.loading.source import find_source
from vit_zoo.weights.dialects import DIALECTS
from vit_zoo.weights.resize import resize_relative_biases
from vit_zoo.weights.translate import to_theirs

SIDE = 4  # patches


def of_timm(name, patch, **options):
    """timm's model of this name, small, with random values."""
    small = {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": SIDE * patch, "num_classes": 11}
    return noise(timm.create_model(name, **{**small, **options}), scale=0.15)


# the dialect, timm's name, the size of a patch, options of the model, and what the file does not tell
PE = {"ref_feat_shape": (SIDE, SIDE)}
RELEASES = {
    "EVA-02, B": ("eva02", "eva02_base_patch14_448", 14, {}, {}),
    "EVA-02-CLIP, L": ("eva02", "eva02_large_patch14_clip_224", 14, {}, {}),
    "EVA-02, Ti": ("eva02-small", "eva02_tiny_patch14_336", 14, {}, {}),
    "EVA-CLIP, E": ("eva-clip", "eva02_enormous_patch14_clip_224", 14, {}, {"block_norm": "post"}),
    "EVA-CLIP, g": ("eva-clip", "eva_giant_patch14_clip_224", 14, {}, {"block_norm": "pre"}),
    "PE core, B": ("pe", "vit_pe_core_base_patch16_224", 16, {**PE, "attn_pool_num_heads": 4}, {"pool_heads": 4}),
    "PE core, G": ("pe", "vit_pe_core_gigantic_patch14_448", 14, {**PE, "attn_pool_num_heads": 8}, {}),
    "PE language": ("pe", "vit_pe_lang_large_patch14_448", 14, {**PE, "num_classes": 0}, {}),
    "PE spatial": ("pe", "vit_pe_spatial_base_patch16_512", 16, {**PE, "num_classes": 0}, {}),
    "PE spatial, G": ("pe", "vit_pe_spatial_gigantic_patch14_448", 14, {**PE, "num_classes": 0}, {}),
    "AIMv2": ("aimv2", "aimv2_large_patch14_224", 14, {"num_classes": 0}, {}),
    "BEiT-3": ("beit3", "beit3_base_patch16_224", 16, {}, {}),
    "BEiT": ("timm-beit", "beit_base_patch16_224", 16, {}, {}),
}
CONVERTERS = {"aimv2": timm.models.vision_transformer, "beit3": timm.models.vision_transformer, "timm-beit": timm.models.beit}


def as_released(dialect, ours):
    """The state dict of a model under the names of a dialect, and what such files hold besides."""
    tensors = {
        name: Stored("F32", tuple(p.shape), partial(torch.Tensor.numpy, p.detach())) for name, p in ours.named_parameters()
    }
    if dialect.name == "pe":  # whose projection has no bias
        tensors.pop("head.bias", None)
    p, q = ours.spec.patch_size
    sizes = {"p": p, "q": q, "c": 3, "h": ours.spec.heads, "e": ours.spec.dim_head}
    state = {name: torch.from_numpy(t.array().copy()) for name, t in to_theirs(dialect, tensors, sizes).items()}
    if dialect.name == "eva02":
        state["visual.rope.freqs_cos"] = torch.ones(16, 16)
    if dialect.name == "timm-beit":
        state |= {f"blocks.{i}.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.int64) for i in range(2)}
    if dialect.name == "beit3":
        positions = "beit3.encoder.embed_positions.A.weight"
        state[positions] = torch.cat([torch.randn(2, 48), state[positions]])
        texts = {name.replace(".A.", ".B."): torch.randn_like(tensor) for name, tensor in state.items() if ".A." in name}
        state |= {**texts, "beit3.text_embed.weight": torch.ones(7, 48), "beit3.vision_embed.mask_token": torch.ones(1, 1, 48)}
    return state


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_read_as_timm_reads_it(name, folder):
    dialect, model, patch, options, facts = RELEASES[name]
    (rules,) = [each for each in DIALECTS if each.name == dialect]
    state = as_released(rules, vit_zoo.load(of_timm(model, patch, **options)))
    theirs = of_timm(model, patch, **options)
    noise(theirs, seed=9)  # no value is left from before
    convert = CONVERTERS.get(dialect, timm.models.eva).checkpoint_filter_fn
    if "head.bias" in theirs.state_dict() and dialect == "pe":
        theirs.head.bias.data.zero_()
    theirs.load_state_dict(convert(dict(state), theirs), strict=dialect != "pe")
    images = torch.randn(3, 3, SIDE * patch, SIDE * patch)
    torch.save(state if dialect == "pe" else {"model": state}, "release.pth")
    ours = vit_zoo.load("release.pth", heads=3, image_size=SIDE * patch, **facts).eval()
    assert find_source("release.pth", heads=3, image_size=SIDE * patch, **facts).dialect == dialect
    with torch.inference_mode():
        assert relative(ours(images), theirs(images)) < TOLERANCE


SIZES = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SHARED = {"use_shared_relative_position_bias": True, "use_mean_pooling": False, "use_mask_token": True}
TRANSFORMERS = {
    "BEiT": ("BeitForImageClassification", "BeitConfig", {"use_relative_position_bias": True, "num_labels": 5}),
    "BEiT, features": ("BeitModel", "BeitConfig", {"use_relative_position_bias": True}),
    "BEiT, shared biases": ("BeitModel", "BeitConfig", SHARED),
    "BEiT, positions": (
        "BeitForImageClassification", "BeitConfig",
        {
            "use_relative_position_bias": True, "use_absolute_position_embeddings": True, "use_mean_pooling": False,
            "num_labels": 5,
        },
    ),
    "data2vec": (
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", {"use_relative_position_bias": True, "num_labels": 5}
    ),
    "MetaCLIP 2": ("MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", {"projection_dim": 24}),
    "TIPSv2": ("Tipsv2VisionModel", "Tipsv2VisionConfig", {"mlp_ratio": 2}),
    "TIPSv2, SwiGLU": ("Tipsv2VisionModel", "Tipsv2VisionConfig", {"mlp_ratio": 2, "use_swiglu_ffn": True}),
    "AIMv2": ("Aimv2VisionModel", "Aimv2VisionConfig", {"use_head": False}),
    "AIMv2, biases": ("Aimv2VisionModel", "Aimv2VisionConfig", {"use_head": False, "qkv_bias": True, "mlp_bias": True}),
}  # fmt: skip


# what is written for a model is the class of another name that computes the same
SAME = {
    "data2vec": "BeitForImageClassification", "MetaCLIP 2": "CLIPVisionModelWithProjection",
    "TIPSv2": "Dinov2WithRegistersModel", "TIPSv2, SwiGLU": "Dinov2WithRegistersModel",
}  # fmt: skip


def of_transformers(name):
    model, config, options = TRANSFORMERS[name]
    code, settings = transformers, transformers
    if model.startswith("Tipsv2"):
        code, settings = (import_module(f"transformers.models.tipsv2.{each}_tipsv2") for each in ("modeling", "configuration"))
    return noise(getattr(code, model)(getattr(settings, config)(**SIZES, **options)), scale=0.15)


def result(peer, images):
    """What a model of transformers is for: logits, pooled features, or tokens."""
    with torch.inference_mode():
        outputs = peer(images)
    values = (getattr(outputs, name, None) for name in ("logits", "image_embeds", "pooler_output", "last_hidden_state"))
    return next(value for value in values if value is not None)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_transformers_both_ways(name, folder):
    """Live, from a folder, and back: transformers runs what is written for it."""
    peer = of_transformers(name)
    images = torch.randn(3, 3, 32, 32)
    wanted = result(peer, images)
    peer.save_pretrained("theirs")
    live, read = vit_zoo.load(peer).eval(), vit_zoo.load("theirs").eval()
    assert read.spec == live.spec
    with torch.inference_mode():
        assert relative(live(images), wanted) < TOLERANCE
        assert relative(read(images), wanted) < TOLERANCE
    vit_zoo.convert("theirs", "back", "hf")
    kind = getattr(transformers, SAME[name]) if name in SAME else type(peer)
    assert relative(result(kind.from_pretrained("back").eval(), images), wanted) < TOLERANCE


def test_the_attention_pooling_of_transformers_aimv2_is_refused_by_name():
    config = transformers.Aimv2VisionConfig(**SIZES)
    with pytest.raises(RefusedContent, match="attention pooling without a projection of its query"):
        vit_zoo.load(noise(transformers.Aimv2VisionModel(config)))


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize("size", [(32, 64), (24, 40), (80, 48), (16, 16)])
def test_relative_biases_for_other_images_match_timm(size, folder):
    peer = noise(peers.timm_beit(img_size=32, patch_size=8), scale=0.5)
    torch.save(peer.state_dict(), "beit.pth")
    images = torch.randn(2, 3, *size)
    ours = vit_zoo.load("beit.pth", heads=3, image_size=size).eval()
    peer.set_input_size(size)
    with torch.inference_mode():
        assert relative(ours(images), peer(images)) < TOLERANCE


def test_relative_biases_for_other_images_match_transformers(folder):
    peer = of_transformers("BEiT")
    images = torch.randn(2, 3, 48, 48)
    peer.save_pretrained("theirs")
    with torch.inference_mode():
        wanted = peer(images, interpolate_pos_encoding=True).logits
        assert relative(vit_zoo.load("theirs", image_size=48).eval()(images), wanted) < TOLERANCE


def test_a_table_of_one_distance_is_repeated():
    table = Stored("F32", (4, 2), lambda: torch.arange(8.0).reshape(4, 2).numpy())
    resized = resize_relative_biases(table, (1, 1), (2, 3), "timm")
    assert resized.shape == resized.array().shape == (18, 2)
    assert (resized.array()[:15] == table.array()[0]).all()
    assert (resized.array()[15:] == table.array()[1:]).all()


def test_tables_that_fit_no_grid_are_refused(folder):
    peer = noise(peers.timm_beit(img_size=(32, 48), patch_size=8))
    torch.save(peer.state_dict(), "beit.pth")
    with pytest.raises(InputError, match="has 80 rows, which do not fit a grid of 4x4") as error:
        vit_zoo.load("beit.pth", heads=3)
    assert "grid=ROWS,COLUMNS" in str(error.value)
    ours = vit_zoo.load("beit.pth", heads=3, grid=(4, 6)).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        assert relative(ours(images), peer(images)) < TOLERANCE
