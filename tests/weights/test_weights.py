"""Tests of reading checkpoints: every tensor is used once or named in an error, and every table of rules is invertible."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import vit_zoo
from support import peers
from support.cases import CASE_NAMES, FACTS, case
from support.models import SMALL, noise
from vit_zoo.errors import HubError, InputError, NotRepresentable, RefusedContent
from vit_zoo.files import SafetensorsFile, Stored
from vit_zoo.files.pickles import tensors_of
from vit_zoo.loading.load import find_weights
from vit_zoo.loading.source import find_source
from vit_zoo.weights.detect import DIALECTS, detect
from vit_zoo.weights.read import read
from vit_zoo.weights.translate import shape_after, to_theirs

# the dialect of each peer, how it is made, and what its file does not tell
UNTOLD = {"heads": 3, "image_size": (32, 48)}
SHARED_BIASES = {"img_size": 32, "patch_size": 8, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
AIMV2 = {
    "norm_layer": peers.RMS, "embed_norm_layer": peers.RMS, "mlp_layer": peers.SwiGLU, "act_layer": "silu", "class_token": False,
    "global_pool": "avg", "fc_norm": False, "qkv_bias": False, "proj_bias": False,
}  # fmt: skip
PEERS = {
    "timm": ("timm", lambda: peers.timm_vit(reg_tokens=2, global_pool="map"), UNTOLD),
    "timm, distilled": ("timm", peers.timm_distilled, UNTOLD),
    "timm, SwiGLU": ("timm", lambda: peers.timm_vit(mlp_layer=peers.SwiGLUPacked, act_layer="silu"), UNTOLD),
    "timm, qk-norm": ("timm", lambda: peers.timm_vit(qk_norm=True), {"image_size": (32, 48)}),
    "timm's DINOv3": ("timm-eva", peers.timm_eva, UNTOLD),
    "timm's DINOv3, SwiGLU": ("timm-eva-swiglu", lambda: peers.timm_eva(swiglu_mlp=True, swiglu_align_to=8), UNTOLD),
    "timm's EVA-02, SwiGLU": (
        "timm-eva02",
        lambda: peers.timm_eva_02(scale_mlp=True, qkv_fused=False, ref_feat_shape=16),
        UNTOLD,
    ),
    "timm's PE, LayerScale": (
        "timm-pe",
        lambda: peers.timm_pe(global_pool="avg", init_values=0.1, ref_feat_shape=32, use_fc_norm=False),
        UNTOLD,
    ),
    "timm's BEiT": ("timm-beit", lambda: peers.timm_beit(img_size=32, patch_size=8), {"heads": 3}),
    "timm's BEiT, shared": ("timm-beit-shared", lambda: peers.timm_beit(**SHARED_BIASES), {"heads": 3}),
    "timm's AIMv2, SwiGLU": ("timm-swiglu", lambda: peers.timm_vit(**AIMV2), UNTOLD),
    "torchvision": ("torchvision", peers.torchvision_vit, {"heads": 3}),
    "torchvision, representation": ("torchvision", lambda: peers.torchvision_vit(representation_size=20), {"heads": 3}),
    "vit-pytorch": ("vit-pytorch", lambda: peers.article_vit(patch_size=8), UNTOLD),
    "vit-pytorch's SimpleViT": ("vit-pytorch-simple", lambda: peers.simple_vit(patch_size=8), UNTOLD),
}


# of transformers in test_hf.py and test_releases.py, other releases in test_releases.py, of timm's and open_clip's CLIP towers in
# test_config_sweeps.py; the rest as renamed files in test_dialects.py
ELSEWHERE = {
    "hf-deit-teacher", "hf-dinov2-swiglu", "hf-dinov2-swiglu-5", "hf-dinov3-gated", "hf-clip-classifier", "hf-siglip-classifier",
    "hf-siglip2-naflex", "big_vision-naflex", "dinov2-swiglu", "dinov3-swiglu", "mae", "openai-clip",
    "hf-beit", "hf-aimv2", "hf-tipsv2", "eva02", "eva02-small", "eva-clip", "pe", "aimv2", "beit3", "open_clip-timm-eva02",
    "vit-pytorch-1.2", "timm-naflex", "timm-naflex-siglip", "timm-naflex-conv", "keras-hub-deit",
}  # fmt: skip


def test_every_dialect_is_read_from_a_real_file():
    """From a live peer here, or from a case that its implementation wrote."""
    cases = {find_source(case(name)[0], **FACTS.get(name, {})).dialect for name in CASE_NAMES}
    live = {dialect for dialect, _, _ in PEERS.values()}
    assert cases | live | {"vitzoo"} == {dialect.name for dialect in DIALECTS} - ELSEWHERE


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("kind", ["safetensors", "torch", "wrapped"])
def test_a_file_of_each_dialect(name, kind, folder):
    dialect, make, facts = PEERS[name]
    peer = noise(make())
    state = peer.state_dict()
    match kind:
        case "safetensors":
            save_file(state, "weights.bin")  # the content tells what it is
        case "torch":
            torch.save(state, "weights.bin")
        case "wrapped":
            torch.save({"model": state, "epoch": 3}, "weights.bin")
    ours = vit_zoo.load("weights.bin", **facts).eval()
    images = torch.randn(2, 3, *ours.spec.image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), peer(images), rtol=0, atol=1e-5)
    source = find_source("weights.bin", **facts)
    assert source.dialect == dialect
    assert source.origin["heads"] == ("stated" if "heads" in facts else "shapes")
    assert source.origin["depth"] == "shapes"
    assert source.origin["norm_eps"] == f"convention of {dialect}"
    assert source.origin["act"] == ("what SwiGLU means" if "SwiGLU" in name else f"convention of {dialect}")


@pytest.mark.parametrize("name", PEERS)
def test_tables_of_rules_are_invertible(name):
    _, make, facts = PEERS[name]
    state = noise(make()).state_dict()
    theirs = tensors_of(state, where="peer")
    reading = read(theirs, facts, where="peer")
    sizes = reading.dialect.pattern_sizes({key: tensor.shape for key, tensor in theirs.items()}, facts)
    back = to_theirs(reading.dialect, reading.tensors, sizes)
    assert set(back) == set(state)
    for key, tensor in back.items():
        assert tensor.shape == tuple(state[key].shape), key
        assert torch.equal(torch.from_numpy(tensor.array().copy()), state[key]), key


@pytest.mark.parametrize("name", PEERS)
def test_every_tensor_is_accounted_for(name):
    """Each tensor in turn is left out, renamed or reshaped: the error names it where it has a name."""
    _, make, facts = PEERS[name]
    state = noise(make()).state_dict()
    for key in state:
        rest = {k: t for k, t in state.items() if k != key}
        for change in (rest, {**rest, f"{key}.x": state[key]}, {**rest, key: torch.zeros(*state[key].shape, 2)}):
            with pytest.raises((RefusedContent, InputError)) as refusal:
                read(tensors_of(change, where="peer"), facts, where="peer")
            assert refusal.value.code in (2, 7), key
    with pytest.raises(RefusedContent, match="'spare'"):
        read(tensors_of({**state, "spare": torch.zeros(3)}, where="peer"), facts, where="peer")


PUBLISHED = {"dinov2": "dinov2_s14", "deit3": "deit3_s16", "torchvision": "vit_b32", "timm": "vit_l16"}


def bare(dialect, spec):
    """The tensors of a model as a dialect names them, without values."""
    table = next(each for each in DIALECTS if each.name == dialect)
    theirs = to_theirs(table, {name: Stored("F32", shape, lambda: None) for name, shape in spec.shapes().items()}, {})
    return theirs | {name: Stored("F32", shape(spec), lambda: None) for name, shape in table.added.items()}


@pytest.mark.parametrize("dialect", PUBLISHED)
def test_heads_are_assumed_for_the_sizes_that_a_source_has_published(dialect):
    spec = vit_zoo.get_spec(PUBLISHED[dialect])
    reading = read(bare(dialect, spec), {}, where="file")
    assert reading.dialect.name == dialect
    assert (reading.spec.heads, reading.origin["heads"]) == (spec.heads, f"convention of {dialect}")
    assert read(bare(dialect, spec), {"heads": 2}, where="file").spec.heads == 2


@pytest.mark.parametrize("change", [{"image_size": 4}, {"depth": 5}, {"patch_size": 3}])
@pytest.mark.parametrize("dialect", PUBLISHED)
def test_heads_of_a_size_that_a_source_has_not_published_are_asked_for(dialect, change):
    """The classes of torchvision and of DINOv2 take any number of heads."""
    spec = vit_zoo.get_spec(PUBLISHED[dialect])
    (field, factor), patch = next(iter(change.items())), spec.patch_size[0]
    value = spec.depth + 1 if field == "depth" else patch * factor
    sizes = {field: value} if field != "patch_size" else {"patch_size": value, "image_size": value * 8}
    with pytest.raises(InputError, match=r"cannot infer heads.*state it: heads=N"):
        read(bare(dialect, spec.replace(**sizes)), {}, where="file")


def test_the_width_of_a_head_tells_their_number():
    """A norm of queries has the width of a head."""
    tensors = tensors_of(noise(peers.timm_vit(qk_norm=True)).state_dict(), where="peer")
    reading = read(tensors, {"image_size": (32, 48)}, where="file")
    assert (reading.spec.heads, reading.origin["heads"]) == (3, "shapes")


CLIP = {"class_token": True, "pre_norm": True}
SIGLIP = {"class_token": False, "global_pool": "map"}
PATCHES_ALONE = {"class_token": False, "global_pool": "avg", "fc_norm": False}
TIMM_FILES = {
    "CLIP": (CLIP, {"act": "gelu"}, 1e-5),
    "CLIP with QuickGELU": ({**CLIP, "act_layer": "quick_gelu"}, {"act": "quick_gelu"}, 1e-5),
    "SigLIP": (SIGLIP, {"act": "gelu"}, 1e-6),
    "SigLIP with the tanh GELU": ({**SIGLIP, "act_layer": "gelu_tanh"}, {"act": "gelu_tanh"}, 1e-6),
    "SigLIP with average pooling": ({**PATCHES_ALONE, "act_layer": "gelu_tanh"}, {"act": "gelu_tanh"}, 1e-6),
    "average pooling without biases": ({**PATCHES_ALONE, "qkv_bias": False}, {}, 1e-6),
    "attention pooling after a class token": ({"global_pool": "map"}, {}, 1e-6),
    "average pooling with registers": ({**PATCHES_ALONE, "reg_tokens": 2}, {}, 1e-6),
    "average pooling after a class token": ({"global_pool": "avg"}, {}, 1e-6),
}


@pytest.mark.parametrize("kind", TIMM_FILES)
def test_the_activation_of_a_kind_of_timm_file_that_has_several_is_asked_for(kind, folder):
    """timm builds CLIP towers with eps 1e-5, some with QuickGELU, and some of its SigLIP towers with the tanh GELU."""
    changes, facts, eps = TIMM_FILES[kind]
    peer = noise(peers.timm_vit(norm_eps=eps, img_size=32, patch_size=8, **changes))
    torch.save(peer.state_dict(), "file.pth")
    if facts:
        with pytest.raises(InputError, match=r"cannot infer act from the file \(state it: act="):
            find_source("file.pth", heads=3)
    ours = vit_zoo.load("file.pth", heads=3, **facts).eval()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), peer(images), rtol=0, atol=1e-5)
    assert ours.spec.norm_eps == eps


@pytest.mark.parametrize("name", ["vit_ti16", "vit_s16", "dino_s16"])
def test_heads_of_sizes_that_sources_publish_with_different_numbers_are_asked_for(name):
    """MoCo v3's ViT-S and MAE-Lite's ViT-Tiny have 12 heads."""
    with pytest.raises(InputError, match="cannot infer heads"):
        read(bare("timm", vit_zoo.get_spec(name)), {}, where="file")


def test_a_timm_config_with_another_width_keeps_the_heads_of_its_architecture(folder):
    """timm fills in the arguments that `model_args` lack from the architecture."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 2}
    for architecture, heads in (("vit_large_patch16_224", 16), ("vit_tiny_patch16_224", 3)):
        peer = noise(peers.timm.create_model(architecture, **sizes, num_classes=5))
        save_file(peer.state_dict(), folder / "model.safetensors")
        config = {"architecture": architecture, "num_classes": 5, "model_args": sizes}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        ours = vit_zoo.load(folder).eval()
        images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), peer(images), rtol=0, atol=1e-5)
        assert ours.spec.heads == heads


def test_what_is_assumed_is_said_once_and_shown(folder, cli):
    spec = vit_zoo.get_spec("vit_b32").replace(depth=2)
    file = {name: torch.zeros(stored.shape) for name, stored in bare("torchvision", spec).items()}
    save_file(file, "file.safetensors")
    line = "assumed by convention of torchvision: norm_eps = 1e-06, act = gelu, pool = cls"
    code, out, err = cli("convert", "file.safetensors", "-o", "ours", "--set", "heads=12")
    assert (code, err) == (0, f"vitzoo: file.safetensors: {line}\n")
    code, out, _ = cli("show", "file.safetensors", "--set", "heads=12")
    assert line in out
    assert re.search(r"act: +gelu +convention of torchvision", out)
    stated = ["--set", "heads=12", "--set", "norm_eps=1e-6", "--set", "act=gelu", "--set", "pool=cls"]
    assert cli("show", "file.safetensors", *stated).err == ""
    code, _, err = cli("convert", "file.safetensors", "-o", "again")
    assert code == 2
    assert "state it: --set heads=N" in err


def test_heads_of_names_that_many_sources_share_are_asked_for(folder):
    """MoCo v3's ViT-S has timm's names, the sizes of DeiT's and DINO's, and twice as many heads."""
    with torch.device("meta"):
        small, odd = peers.timm.create_model("vit_small_patch16_224"), peers.timm_vit()
    meta = {key: torch.empty(t.shape) for key, t in small.state_dict().items()}
    save_file(meta, "small.safetensors")
    with pytest.raises(InputError, match=r"cannot infer heads.*state it: heads=N") as error:
        find_source("small.safetensors")
    assert error.value.code == 2
    assert find_source("small.safetensors", heads=6).config.spec == vit_zoo.get_spec("vit_s16")
    assert find_weights("vit_s16", weights="small.safetensors").config.spec.heads == 6  # the name states it
    save_file({key: torch.empty(t.shape) for key, t in odd.state_dict().items()}, "odd.safetensors")
    with pytest.raises(InputError, match="cannot infer heads"):
        find_source("odd.safetensors", image_size=(32, 48))
    with pytest.raises(InputError, match="do not form a square grid"):
        find_source("odd.safetensors", heads=3, class_token=True)
    with pytest.raises(InputError, match="head is the file of a linear head, not 3; nearest: heads"):
        find_source("odd.safetensors", head=3)


def test_our_own_names_alone_have_no_conventions(folder):
    """A model of ViT's own names could come from any library: its eps must be stated, not taken from timm."""
    model = noise(vit_zoo.ViT(image_size=16, patch_size=8, num_classes=3, dim=32, depth=1, heads=2, mlp_dim=48))
    torch.save(model.state_dict(), "state.pt")
    with pytest.raises(InputError, match="cannot infer norm_eps"):
        vit_zoo.load("state.pt", heads=2)
    loaded = vit_zoo.load("state.pt", heads=2, norm_eps=1e-5, act="gelu")
    assert loaded.spec == model.spec


def test_unknown_dialects_and_tensors_without_a_counterpart():
    with pytest.raises(RefusedContent, match="not a ViT of a known dialect"):
        detect(tensors_of({"layer1.conv.weight": torch.ones(2)}, where="x"), where="x")
    registers = vit_zoo.create("vit_b16", **SMALL, registers=2)
    torchvision = next(dialect for dialect in DIALECTS if dialect.name == "torchvision")
    with pytest.raises(NotRepresentable, match="reg_token"):
        to_theirs(torchvision, tensors_of(registers.state_dict(), where="x"), {})


def test_shapes_without_data():
    assert shape_after("d (p q c) -> d c p q", (5, 24), {"p": 2, "q": 4, "c": 3}) == (5, 3, 2, 4)
    assert shape_after("t d -> 1 t d", (7, 5), {}) == (1, 7, 5)
    with pytest.raises(ValueError, match="does not fit an axis of 25"):
        shape_after("d (p q c) -> d c p q", (5, 25), {"p": 2, "q": 4, "c": 3})


def test_timm_loads_our_own_file(folder):
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    vit_zoo.save(model, "ours")
    peer = peers.timm_vit()
    peer.load_state_dict(load_file("ours/model.safetensors"), strict=True)
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(peer.eval()(images), model(images), rtol=0, atol=1e-5)


def test_loading_is_lazy_and_full_checks_are_full(folder):
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    vit_zoo.save(model, "ours")
    opened = SafetensorsFile(folder / "ours" / "model.safetensors")
    span = opened.tensors["norm.weight"].span
    content = bytearray((folder / "ours" / "model.safetensors").read_bytes())
    content[span.start] ^= 1
    (folder / "ours" / "model.safetensors").write_bytes(content)
    vit_zoo.load("ours")
    with pytest.raises(RefusedContent, match="content hash differs"):
        vit_zoo.load("ours", check="full")
    content[span.start : span.start + 4] = b"\x00\x00\xc0\x7f"
    (folder / "ours" / "model.safetensors").write_bytes(content)
    with pytest.raises(RefusedContent, match=r"'norm\.weight' has 1 values that are not finite"):
        vit_zoo.load("ours", check="full")


def test_weights_for_a_name(folder):
    config = {**SMALL, "image_size": (32, 48)}
    vit_zoo.save(noise(vit_zoo.create("vit_b16", **config)), "trained")
    (done,) = vit_zoo.export("vit_b16", weights="trained/model.safetensors", **config)
    assert done.path.name == "vit_b16.onnx"
    assert done.config.random_seed is None
    with pytest.raises(InputError, match="the config states depth = 3, not 4"):
        vit_zoo.export("vit_b16", weights="trained", **{**config, "depth": 4})
    with pytest.raises(HubError, match="cannot reach the Hub"):  # the weights of that name
        vit_zoo.export("vit_b16", weights="vit_ti16")


def test_show_lists_unknown_facts(cli):
    file = case("open_clip_quickgelu")[0]
    code, out, _ = cli("show", file)
    assert code == 0
    assert "dialect open_clip" in out
    assert "unknown:  heads, act (state them: --set heads=N and --set act=gelu, say)" in out
    assert re.search(r"norm_eps: +1e-05 +convention of open_clip", out)
    code, out, _ = cli("show", file, "--json")
    assert code == 0
    document = json.loads(out)
    assert (document["unknown"], document["known"]["depth"], document["origin"]["depth"]) == (["heads", "act"], 2, "shapes")
    code, out, _ = cli("show", file, "--set", "heads=3", "--set", "act=quick_gelu")
    assert code == 0
    assert "left out:" in out
    assert re.search(r"heads: +3 +stated", out)


def small_of_timm(name):
    return noise(peers.timm.create_model(name, img_size=112, embed_dim=48, depth=2, num_heads=3, num_classes=7))


@pytest.mark.parametrize("name", ["vit_pe_core_base_patch16_224", "vit_pe_spatial_small_patch16_512"])
def test_positions_that_may_be_rotated_are_asked_about(name, folder):
    """Bare files of PE have the tensors of a ViT with learned positions alone."""
    torch.save(small_of_timm(name).state_dict(), "file.pth")
    facts = {"heads": 3, "act": "gelu", **({"pool_heads": 8} if "core" in name else {})}
    with pytest.raises(InputError, match=r"cannot infer pos from the file; models that rotate positions .*pos=learned"):
        vit_zoo.load("file.pth", **facts)
    assert vit_zoo.load("file.pth", **facts, pos="learned").spec.pos == "learned"


def test_where_norms_of_blocks_are_is_asked_about(folder):
    """EVA-02-CLIP-E has the tensors of EVA's ViT-g; only their published widths tell them apart."""
    torch.save(small_of_timm("eva02_enormous_patch14_clip_224").state_dict(), "file.pth")
    with pytest.raises(InputError, match=r"cannot infer block_norm from the file \(state it: block_norm=pre or post\)"):
        vit_zoo.load("file.pth", heads=3)
    assert vit_zoo.load("file.pth", heads=3, block_norm="post").spec.block_norm == "post"
    for name in ("eva_g14_224", "evaclip_e14"):
        spec = vit_zoo.get_spec(name)
        bare_tensors = {key: Stored("F32", shape, lambda: None) for key, shape in spec.shapes().items()}
        assert read(bare_tensors, {"heads": 16, "pool": spec.pool}, where="file").spec.block_norm == spec.block_norm
