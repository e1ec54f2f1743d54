"""Tests of every option of the spec against implementations of the field, in torch and in ONNX."""

from __future__ import annotations

import types
import typing

import onnx
import onnxruntime as ort
import pytest
import torch

import vit_zoo
from support import peers
from support.models import SMALL, noise
from support.onnx_outputs import OPSETS, TOLERANCE, onnx_outputs, relative
from vit_zoo.errors import CheckFailed
from vit_zoo.files.pickles import tensors_of
from vit_zoo.formats.onnx_versions import can_open
from vit_zoo.graph.build import build, to_proto
from vit_zoo.graph.fp16_ops import HalfOps
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.values import FLOAT, Value
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.load import model_of
from vit_zoo.model.spec import ViTSpec
from vit_zoo.model.torch_ops import EVAL, Float64Ops
from vit_zoo.model.vit import ViT

# every peer: how it is built, and what `load` has to be told because neither its tensors nor the module say so
PEERS = {
    "class token": (peers.timm_vit, {}),
    "no class token, mean of patches, norm after it": (lambda: peers.timm_vit(class_token=False, global_pool="avg"), {}),
    "class token, mean of patches": (lambda: peers.timm_vit(global_pool="avg"), {}),
    "mean of all tokens": (lambda: peers.timm_vit(global_pool="avg", pool_include_prefix=True, reg_tokens=2), {}),
    "mean, norm before it": (lambda: peers.timm_vit(global_pool="avg", fc_norm=False), {}),
    "attention pooling": (lambda: peers.timm_vit(global_pool="map", class_token=False), {}),
    "attention pooling, prefix": (lambda: peers.timm_vit(global_pool="map", reg_tokens=1), {}),
    "registers in the table": (lambda: peers.timm_vit(reg_tokens=4), {}),
    "registers outside the table": (lambda: peers.timm_vit(reg_tokens=4, no_embed_class=True), {}),
    "no positions": (lambda: peers.timm_vit(pos_embed="none"), {}),
    "no final norm": (lambda: peers.timm_vit(final_norm=False), {}),
    "tokens": (lambda: peers.timm_vit(global_pool="", num_classes=0), {}),
    "pooled features": (lambda: peers.timm_vit(num_classes=0), {}),
    "LayerScale": (lambda: peers.timm_vit(init_values=0.1), {}),
    "pre-norm, quick GELU": (lambda: peers.timm_vit(pre_norm=True, act_layer="quick_gelu", norm_eps=1e-5), {}),
    "tanh GELU": (lambda: peers.timm_vit(act_layer="gelu_tanh"), {}),
    "no qkv bias": (lambda: peers.timm_vit(qkv_bias=False), {}),
    "no projection biases": (lambda: peers.timm_vit(proj_bias=False), {}),
    "no MLP biases": (lambda: peers.timm_without_biases("mlp.fc1", "mlp.fc2"), {}),
    "no head bias": (lambda: peers.timm_without_biases("head"), {}),
    "one channel, square": (lambda: peers.timm_vit(in_chans=1, img_size=32, patch_size=16), {}),
    "six channels": (lambda: peers.timm_vit(in_chans=6), {}),
    "vit-pytorch, cls": (peers.article_vit, {"image_size": (32, 48)}),
    "vit-pytorch, mean": (lambda: peers.article_vit(pool="mean"), {"image_size": (32, 48)}),
    "vit-pytorch, one head as wide as the model": (lambda: peers.article_vit(heads=1, dim_head=48), {"image_size": (32, 48)}),
    "vit-pytorch, one narrow head": (lambda: peers.article_vit(heads=1, dim_head=24), {"image_size": (32, 48)}),
    "vit-pytorch, wide heads": (lambda: peers.article_vit(dim_head=40), {"image_size": (32, 48)}),
    "vit-pytorch, tokens": (lambda: peers.article_vit(num_classes=0), {"image_size": (32, 48)}),
    "torchvision": (peers.torchvision_vit, {}),
    "distillation token": (peers.timm_distilled, {}),
    "distillation token, pooled features": (lambda: peers.timm_distilled(num_classes=0), {}),
    "SwiGLU": (lambda: peers.timm_vit(mlp_layer=peers.SwiGLUPacked, act_layer="silu", mlp_ratio=4), {}),
    "a gate of GELU, no biases": (lambda: peers.timm_vit(mlp_layer=peers.SwiGLUPacked, proj_bias=False), {}),
    "SiLU": (lambda: peers.timm_vit(act_layer="silu"), {}),
    "qk-norm": (lambda: peers.timm_vit(qk_norm=True), {}),
    "rotation": (peers.timm_eva, {}),
    "rotation, no qkv bias": (lambda: peers.timm_eva(qkv_bias=False, global_pool="avg"), {}),
    "rotation, SwiGLU, tokens": (lambda: peers.timm_eva(swiglu_mlp=True, swiglu_align_to=8, global_pool="", num_classes=0), {}),
    "rotation, qk-norm": (lambda: peers.timm_eva(qk_norm=True), {}),
    "RMS norms, one after the patches": (lambda: peers.timm_vit(norm_layer=peers.RMS, embed_norm_layer=peers.RMS), {}),
    "RMS norms of queries and keys": (lambda: peers.timm_vit(norm_layer=peers.RMS, qk_norm=True, scale_attn_norm=True), {}),
    "norms inside attention and MLP": (lambda: peers.timm_vit(scale_attn_norm=True, scale_mlp_norm=True), {}),
    "norms inside a gated MLP": (lambda: peers.timm_eva_02(scale_mlp=True, scale_attn_inner=True, qkv_fused=False), {}),
    "norms after attention and MLP": (lambda: peers.timm_eva_02(use_post_norm=True, swiglu_mlp=False), {}),
    "rotation, EVA-02": (lambda: peers.timm_eva_02(ref_feat_shape=(5, 2)), {}),
    "rotation, EVA-02, without scale": (peers.timm_eva_02, {}),
    "rotation, PE": (lambda: peers.timm_pe(ref_feat_shape=(4, 2)), {}),
    "rotation, PE, no class token, tokens": (
        lambda: peers.timm_pe(class_token=False, rope_grid_offset=0.0, global_pool="", num_classes=0),
        {},
    ),
    "rotation, axial": (peers.timm_rope_vit, {}),
    "rotation, axial, learned positions": (lambda: peers.timm_rope_vit(use_abs_pos_emb=True, no_embed_class=True), {}),
    "rotation, mixed": (lambda: peers.timm_rope_vit(rope_type="mixed", rope_temperature=10), {}),
    "attention pooling with its own heads and width": (lambda: peers.timm_pe(attn_pool_num_heads=6, attn_pool_mlp_ratio=3.0), {}),
    "relative biases of blocks": (peers.timm_beit, {}),
    "relative biases of blocks, positions": (lambda: peers.timm_beit(use_abs_pos_emb=True), {}),
    "relative biases, shared": (lambda: peers.timm_beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True), {}),
    "relative biases, class token": (lambda: peers.timm_beit(global_pool="token"), {}),
    "fixed positions": (peers.simple_vit, {}),
    "fixed positions, one row": (lambda: peers.simple_vit(image_size=(8, 48)), {}),
    "fixed positions, registers": (lambda: peers.simple_vit(registers=3), {}),
    "representation": (lambda: peers.torchvision_vit(representation_size=20), {}),
}

# where only transformers has it: model, config and its options, how it is called, our fields, and our outputs by its own
MASK = {"noise": torch.arange(16.0).expand(2, -1)}  # ViTMAE shuffles by this; none is masked
GATED = {"intermediate_size": 96, "num_register_tokens": 2, "use_gated_mlp": True, "hidden_act": "silu"}
TRANSFORMERS = {
    "positions of class and patches": (
        ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {"mlp_ratio": 2, "num_register_tokens": 4}, {}),
        {"num_classes": 0, "registers": 4, "pos_covers": "class", "layer_scale": True},
        {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"},
    ),
    "class token and mean": (
        ("Dinov2ForImageClassification", "Dinov2Config", {"mlp_ratio": 2, "num_labels": 11}, {}),
        {"layer_scale": True, "pool": "cls+mean", "pool_tokens": "patches"},
        {"logits": "logits"},
    ),
    "class token and mean, registers": (
        ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", {"mlp_ratio": 2, "num_labels": 11}, {}),
        {"registers": 4, "pos_covers": "class", "layer_scale": True, "pool": "cls+mean", "pool_tokens": "patches"},
        {"logits": "logits"},
    ),
    "fixed positions, MAE's": (
        ("ViTMAEModel", "ViTMAEConfig", {"intermediate_size": 96, "mask_ratio": 0.0}, MASK),
        {"num_classes": 0, "norm_eps": 1e-12, "pos": "sincos_mae", "pos_covers": "patches"},
        {"last_hidden_state": "last_hidden_state"},
    ),
    "representation without a head": (
        ("ViTModel", "ViTConfig", {"intermediate_size": 96}, {}),
        {"num_classes": 0, "norm_eps": 1e-12, "representation": 48},
        {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"},
    ),
    "rotation": (
        ("DINOv3ViTModel", "DINOv3ViTConfig", {"intermediate_size": 96, "num_register_tokens": 4}, {}),
        {
            "num_classes": 0, "norm_eps": 1e-5, "registers": 4, "pos": "rope", "pos_covers": "patches", "qkv_bias": "qv",
            "layer_scale": True,
        },
        {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"},
    ),
    "rotation, SwiGLU": (
        ("DINOv3ViTModel", "DINOv3ViTConfig", GATED, {}),
        {
            "num_classes": 0, "norm_eps": 1e-5, "pos": "rope", "pos_covers": "patches", "qkv_bias": "qv", "layer_scale": True,
            "mlp": "swiglu", "act": "silu", "registers": 2,
        },
        {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PEERS)
def test_against_peer(case, tmp_path):
    make, facts = PEERS[case]
    peer = noise(make())
    ours = vit_zoo.load(peer, **facts).eval()
    images = torch.randn(3, ours.spec.channels, *ours.spec.image_size)
    with torch.inference_mode():
        wanted, found = peer(images), ours(images)
    assert relative(found, wanted) < TOLERANCE
    for opset in OPSETS:
        exported = onnx_outputs(ours, images, opset, tmp_path)
        assert relative(exported[ours.spec.output], wanted) < TOLERANCE


def from_transformers(case):
    """The peer, our model with the same weights, and the arguments that the peer's call needs besides images."""
    (model, config, options, words), fields, _ = TRANSFORMERS[case]
    peer = peers.transformers_vit(model, config, **options)
    table = peers.mae_table(peer) if fields.get("pos") == "sincos_mae" else None
    noise(peer, scale=0.15)
    ours = vit_zoo.create("vit_b16", **{**SMALL, "image_size": 32, "patch_size": 8, **fields}).eval()
    state = peers.transformers_state(peer)
    if table is not None:  # a parameter there, which nobody trains
        state.pop("pos_embed").data.copy_(table)
    ours.load_state_dict(state)
    return peer, ours, words


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_against_transformers(case, tmp_path):
    peer, ours, words = from_transformers(case)
    images = torch.randn(2, 3, 32, 32)
    outputs = TRANSFORMERS[case][2]
    with torch.inference_mode():
        wanted, found = peer(images, **words), ours.features(images, *outputs)
    for name, theirs in outputs.items():
        assert relative(found[name], getattr(wanted, theirs)) < TOLERANCE, name
    for opset in OPSETS:
        exported = onnx_outputs(ours, images, opset, tmp_path, tuple(outputs))
        for name, theirs in outputs.items():
            assert relative(exported[name], getattr(wanted, theirs)) < TOLERANCE, name


def zero_shot(kind):
    """The peer with its texts, and our model whose head holds the embeddings of the texts."""
    options = {"projection_dim": 24} if kind == "CLIP" else {}
    peer, tokens = peers.transformers_joint(kind, **options)
    noise(peer, scale=0.15)
    scale, bias = peer.logit_scale.data, getattr(peer, "logit_bias", None)
    scale.fill_(3.0)
    with torch.inference_mode():
        texts = peers.text_embeddings(peer, tokens)
    images = vit_zoo.load(peer)
    state = images.state_dict()
    if kind == "CLIP":
        state["projection.weight"] = state.pop("head.weight")
    state["head.weight"] = scale.exp() * texts / texts.norm(dim=-1, keepdim=True)
    if bias is not None:
        state["head.bias"] = bias.data.expand(len(texts)).clone()
    fields = {"num_classes": 7, "cosine_head": True, "head_bias": bias is not None}
    ours = ViT.from_spec(images.spec.replace(projection=24 if kind == "CLIP" else 0, **fields)).eval()
    ours.load_state_dict(state)
    return peer, tokens, ours


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_heads_of_text_embeddings_against_transformers(kind, tmp_path):
    peer, tokens, ours = zero_shot(kind)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = peer(pixel_values=images, input_ids=tokens)
        found = ours.features(images, "logits", *(["image_embeds"] if kind == "CLIP" else []))
        assert relative(found["logits"], wanted.logits_per_image) < TOLERANCE
        assert relative(Float64Ops().normalize(found.get("image_embeds", wanted.image_embeds)), wanted.image_embeds) < TOLERANCE
    for opset in OPSETS:
        exported = onnx_outputs(ours, images, opset, tmp_path, tuple(found))
        for name, values in found.items():
            assert relative(exported[name], values) < TOLERANCE, name
    if kind == "CLIP":  # the head comes behind the embedding, and so is not in the file
        assert set(onnx_outputs(ours, images, 20, tmp_path, ("image_embeds",))) == {"image_embeds"}
        assert "head" not in str(onnx.load(tmp_path / "model.onnx").graph.initializer)


def values_of(annotation):
    """The values that a field's type lists, if it lists any."""
    if annotation is bool:
        return {True, False}
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return set().union(*map(values_of, typing.get_args(annotation)))
    return set()


def test_every_field_and_value_has_a_case():
    """A new field, or a new value of one, fails here until a peer's case runs it through both back ends."""
    specs = [vit_zoo.load(make(), **facts).spec for make, facts in PEERS.values()]
    specs += [from_transformers(case)[1].spec for case in TRANSFORMERS]
    specs += [zero_shot("CLIP")[2].spec]
    training = {"dropout", "emb_dropout", "drop_path"}  # tests/model/test_training.py: they are nothing in eval mode
    for name, field in ViTSpec.model_fields.items():
        if name in training:
            continue
        seen = {getattr(spec, name) for spec in specs}
        if values_of(field.annotation):
            assert seen == values_of(field.annotation), name
        elif name not in ("dim", "depth", "mlp_dim"):  # sizes alone; the registry's names vary them
            assert len(seen) > 1, name


ALL_OUTPUTS = {
    "class token": {},
    "mean": {"class_token": False, "pool": "mean", "pool_tokens": "patches", "final_norm": "after_pool"},
    "map": {"registers": 2, "pool": "map", "pool_tokens": "patches"},
    "two heads": {"dist_token": True, "qk_norm": True},
    "class token and mean": {"pool": "cls+mean", "pool_tokens": "patches", "representation": 20},
    "rotation": {"pos": "rope", "pos_covers": "patches", "registers": 2, "qkv_bias": "qv", "mlp": "swiglu", "act": "silu"},
    "fixed positions": {"pos": "sincos_moco", "pos_covers": "patches"},
    "embeddings of texts": {"projection": 20, "cosine_head": True, "head_bias": False},
}


@pytest.mark.parametrize("case", ALL_OUTPUTS)
@pytest.mark.parametrize("opset", [*OPSETS, 25])
def test_every_output(case, opset, tmp_path):
    if not can_open(opset, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])):
        pytest.skip(f"the installed onnxruntime has no operator set {opset}")
    model = noise(vit_zoo.create("vit_b16", **SMALL, **ALL_OUTPUTS[case]))
    images = torch.randn(3, 3, 32, 48)
    names = tuple(model.config.output_names())
    with torch.inference_mode():
        wanted = model.features(images, *names)
    exported = onnx_outputs(model, images, opset, tmp_path, names)
    for name in names:
        assert relative(exported[name], wanted[name]) < TOLERANCE, name
    inner = onnx_outputs(model, images, opset, tmp_path, ("block.1",))  # the blocks behind it are not in the file
    assert relative(inner["block.1"], wanted["block.1"]) < TOLERANCE
    assert (tmp_path / "model.onnx").stat().st_size < sum(t.nbytes for t in tensors_of(model.state_dict(), where="").values())


def test_features_against_timm():
    peer = noise(peers.timm_vit(reg_tokens=2))
    ours = vit_zoo.load(peer).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        _, blocks = peer.forward_intermediates(images, indices=[1], output_fmt="NLC", return_prefix_tokens=True)
        _, maps = peer.forward_intermediates(images, indices=[1], output_fmt="NCHW")
        tokens = peer.forward_features(images)
        found = ours.features(images, "class_token", "patch_tokens", "block.1", "last_hidden_state", "attn.0", "block.1.map")
    assert relative(found["block.1.map"], maps[0]) < TOLERANCE
    assert relative(found["last_hidden_state"], tokens) < TOLERANCE
    assert relative(found["class_token"], tokens[:, 0]) < TOLERANCE
    assert relative(found["patch_tokens"], tokens[:, 3:]) < TOLERANCE
    assert relative(found["block.1"][:, 3:], blocks[0][0]) < TOLERANCE
    weights = found["attn.0"]
    assert weights.shape == (2, 3, 15, 15)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 15))


def test_attention_maps_against_transformers():
    peer = noise(
        peers.transformers_vit("ViTModel", "ViTConfig", num_hidden_layers=2, intermediate_size=96, attn_implementation="eager")
    )
    fields = {**SMALL, "image_size": 32, "patch_size": 8, "depth": 2, "num_classes": 0, "norm_eps": 1e-12, "representation": 48}
    ours = vit_zoo.create("vit_b16", **fields).eval()
    ours.load_state_dict(peers.transformers_state(peer))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = peer(images, output_attentions=True).attentions
        found = ours.features(images, "attn.0", "attn.1")
    for i in range(2):
        assert relative(found[f"attn.{i}"], wanted[i]) < TOLERANCE


def test_pruning_keeps_the_outputs_and_is_off_with_hooks():
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    images = torch.randn(2, 3, 32, 48)
    seen = []
    with torch.inference_mode():
        pruned = model(images)
        handle = model.blocks[-1].register_forward_hook(lambda module, args, out: seen.append(out))
        whole = model(images)
        handle.remove()
    assert seen[0].shape == (2, 13, 48)  # whoever watches the last block sees every token
    assert relative(pruned, whole) < 1e-6
    calls = []
    model.blocks[-1].mlp.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    with torch.inference_mode():
        model(images)
    assert calls == [(2, 13, 48)]


def test_a_fault_is_detected(tmp_path):
    """The comparison above can fail: with another GELU form, eps or number of heads, and with one weight changed."""
    peer = noise(peers.timm_vit())
    images = torch.randn(3, 3, 32, 48)
    with torch.inference_mode():
        wanted = peer(images)
    for facts in ({"act": "gelu_tanh"}, {"norm_eps": 1e-3}, {"heads": 6}):
        wrong = model_of(of_module(peer, check=False, **facts)).eval()
        assert relative(onnx_outputs(wrong, images, 20, tmp_path)["logits"], wanted) > TOLERANCE
    model = vit_zoo.load(peer).eval()
    with torch.no_grad():
        model.blocks[1].mlp.fc2.weight[0, 0] += 0.05
        assert relative(onnx_outputs(model, images, 20, tmp_path)["logits"], wanted) > TOLERANCE


def test_an_unused_weight_is_an_error():
    model = vit_zoo.create("vit_b16", **SMALL)
    tensors = tensors_of({**model.state_dict(), "spare": torch.zeros(3)}, where="model")
    with pytest.raises(CheckFailed, match="spare"):
        build(model.spec, tensors, GraphOptions())


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("ops", "tolerance"), [(OnnxOps, TOLERANCE), (HalfOps, 2e-3)])
def test_a_bias_on_attention_scores(ops, tolerance, opset):
    """No spec has one yet; both back ends add the same one to the scores, scaled, before softmax."""
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.randn(2, 5, 12, generator=generator), torch.randn(1, 3, 5, 5, generator=generator)
    q = EVAL.heads(x, 3)
    wanted = EVAL.attend(q, q, q, 0.0, bias), EVAL.attention_weights(q, q, bias)
    without = EVAL.attend(q, q, q, 0.0), EVAL.attention_weights(q, q)
    image = Value("x", ("batch", 5, 12))
    op = ops({}, opset, {"bias": bias.numpy()}, image=image)
    heads, added = op.heads(image, 3), Value("bias", (1, 3, 5, 5))
    values = op.attend(heads, heads, heads, 0.0, added), op.attention_weights(heads, heads, added)
    results = {value.name: value for value in map(op.unflatten, values)}
    session = ort.InferenceSession(to_proto(op, {image: FLOAT}, results, opset).SerializeToString())
    for found, expected, plain in zip(session.run(None, {"x": x.numpy()}), wanted, without, strict=True):
        assert relative(found, expected) < tolerance
        assert relative(found, plain) > 0.05
