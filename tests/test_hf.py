"""Does every image class of transformers load as a saved folder, as a state dict of 5.x beside its config, and alive?"""

from __future__ import annotations

import peers
import pytest
import torch
from conftest import noise
from safetensors.torch import load_file, save_file

import vit_zoo
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.sources import find_source

T = peers.transformers
SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TOWER = {**SMALL, "intermediate_size": 72}
VIT = {**TOWER, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-7}


def logits(out):
    return out.logits


def pooled(out):
    return out.pooler_output


def first(out):
    return out.last_hidden_state[:, 0]


def mean(out):
    return out.last_hidden_state.mean(1)


def embedded(out):
    return out.image_embeds


# class, config class, its settings, which output, and the dialect on disk
CLASSES = {
    "ViTForImageClassification": ("ViTConfig", VIT, logits, "hf-vit"),
    "ViTModel": ("ViTConfig", VIT, pooled, "hf-vit"),
    "DeiTForImageClassification": ("DeiTConfig", VIT, logits, "hf-deit"),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", VIT, logits, "hf-deit-teacher"),
    "ViTMSNForImageClassification": ("ViTMSNConfig", VIT, logits, "hf-vit"),
    "IJepaForImageClassification": ("IJepaConfig", VIT, logits, "hf-vit"),
    "IJepaModel": ("IJepaConfig", VIT, mean, "hf-vit"),
    "Dinov2ForImageClassification": ("Dinov2Config", {**SMALL, "mlp_ratio": 2}, logits, "hf-dinov2"),
    "Dinov2Model": ("Dinov2Config", {**SMALL, "use_swiglu_ffn": True}, pooled, "hf-dinov2-swiglu"),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {**SMALL, "num_register_tokens": 2}, pooled, "hf-dinov2"),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersConfig", {**SMALL, "use_swiglu_ffn": True}, logits, "hf-dinov2-swiglu",
    ),
    "DINOv3ViTModel": ("DINOv3ViTConfig", {**TOWER, "num_register_tokens": 4}, pooled, "hf-dinov3"),
    "DINOv3ViTModel, gated": (
        "DINOv3ViTConfig", {**TOWER, "use_gated_mlp": True, "hidden_act": "silu"}, pooled, "hf-dinov3-gated",
    ),
    "CLIPVisionModel": ("CLIPVisionConfig", TOWER, pooled, "hf-clip"),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", {**TOWER, "projection_dim": 24}, embedded, "hf-clip"),
    "CLIPForImageClassification": ("CLIPConfig", {"vision_config": TOWER}, logits, "hf-clip-classifier"),
    "SiglipVisionModel": ("SiglipVisionConfig", TOWER, pooled, "hf-siglip"),
    "SiglipForImageClassification": ("SiglipConfig", {"vision_config": TOWER}, logits, "hf-siglip-classifier"),
}  # fmt: skip


def built(name):
    config, settings, output, dialect = CLASSES[name]
    settings = {**settings, "num_labels": 11} if output is logits else settings
    model = noise(getattr(T, name.partition(",")[0])(getattr(T, config)(**settings)))
    return model.eval(), output, dialect


def same(ours, peer, output):
    images = torch.randn(2, 3, *ours.spec.image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), output(peer(images)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_folder(name, folder):
    peer, output, dialect = built(name)
    peer.save_pretrained("saved")
    source = find_source("saved")
    assert source.dialect == dialect
    assert source.origin["heads"] == source.origin["norm_eps"] == "its config"
    same(vit_zoo.load("saved"), peer, output)


@pytest.mark.parametrize("name", CLASSES)
def test_a_state_dict_of_memory(name, folder):
    """torch.save of 5.x's state dict: other keys than on disk; DDP and a wrapper around them."""
    peer, output, _ = built(name)
    peer.save_pretrained("saved")
    (folder / "saved" / "model.safetensors").unlink()
    torch.save({"state_dict": {f"module.{k}": v for k, v in peer.state_dict().items()}}, "saved/pytorch_model.bin")
    same(vit_zoo.load("saved"), peer, output)


@pytest.mark.parametrize("name", CLASSES)
def test_a_live_module(name):
    peer, output, _ = built(name)
    same(vit_zoo.load(peer), peer, output)


def test_parts_of_a_large_file(folder):
    peer, output, _ = built("ViTForImageClassification")
    peer.save_pretrained("saved", max_shard_size="60KB")
    assert len(list((folder / "saved").glob("model-*.safetensors"))) > 2
    same(vit_zoo.load("saved"), peer, output)
    part = sorted((folder / "saved").glob("model-*.safetensors"))[1]
    tensors = load_file(part)
    save_file({**tensors, "spare": torch.zeros(2)}, part)
    with pytest.raises(RefusedContent, match="'spare' is in"):
        vit_zoo.load("saved")
    part.unlink()
    with pytest.raises(RefusedContent, match="is missing"):
        vit_zoo.load("saved")


def test_names_from_before_five(folder):
    """`vision_model.` in front of a bare tower's names, and the position_ids of old files."""
    peer, output, _ = built("SiglipVisionModel")
    peer.save_pretrained("saved")
    file = folder / "saved" / "model.safetensors"
    old = {f"vision_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file({**old, "vision_model.embeddings.position_ids": torch.arange(16)}, file)
    same(vit_zoo.load("saved"), peer, output)
    assert find_source("saved").unwanted == ("vision_model.embeddings.position_ids",)


def test_a_config_of_another_model_is_refused(folder):
    peer, *_ = built("ViTForImageClassification")
    peer.save_pretrained("saved")
    config = folder / "saved" / "config.json"
    config.write_text(config.read_text().replace('"num_channels": 3', '"num_channels": 4'))
    with pytest.raises(RefusedContent, match="its config says channels = 4, its tensors 3"):
        vit_zoo.load("saved")
    config.write_text(config.read_text().replace('"model_type": "vit"', '"model_type": "swin"'))
    with pytest.raises(RefusedContent, match="'swin'"):
        vit_zoo.load("saved")
    config.unlink()
    with pytest.raises(InputError, match="does not tell heads"):
        vit_zoo.load("saved")
    assert vit_zoo.load("saved", heads=3, norm_eps=1e-7, act="gelu_tanh").spec.norm_eps == 1e-7


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersModel"])
def test_another_size_as_the_class_itself_makes_it(name, folder):
    """Their positions are interpolated in two ways, with antialias where there are registers."""
    peer, output, _ = built(name)
    peer.save_pretrained("saved")
    same(vit_zoo.load("saved", image_size=(40, 56)), peer, output)


def test_a_grid_of_nothing_is_refused(folder):
    built("DINOv3ViTModel")[0].save_pretrained("saved")
    with pytest.raises(InputError, match="no positions in the file"):
        vit_zoo.load("saved", grid=(4, 4))
