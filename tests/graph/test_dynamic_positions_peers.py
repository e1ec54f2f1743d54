"""Tests of ONNX files for any image size against the models' own libraries, at sizes for which these interpolate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vit_zoo
from support import peers
from support.models import noise

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 48,
    "patch_size": 8,
}
tf = peers.transformers


def _last(model, **how):
    return lambda x: model(x, **how).last_hidden_state


def timm_plain(**more):
    model = noise(peers.timm_vit(img_size=(32, 48), dynamic_img_size=True, **more), scale=0.15)
    return model, model, "logits", "timm"


def timm_registers():
    return timm_plain(reg_tokens=3, no_embed_class=True)


def transformers_vit():
    model = noise(tf.ViTForImageClassification(tf.ViTConfig(**SMALL, num_labels=11)), scale=0.15)
    return model, lambda x: model(x, interpolate_pos_encoding=True).logits, "logits", "hf"


def dinov2():
    model = noise(tf.Dinov2Model(tf.Dinov2Config(**SMALL, mlp_ratio=2)), scale=0.15)
    return model, _last(model), "last_hidden_state", "hf"


def dinov2_with_registers():
    config = tf.Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, num_register_tokens=3)
    model = noise(tf.Dinov2WithRegistersModel(config), scale=0.15)
    return model, _last(model), "last_hidden_state", "timm"


def dinov3():
    model = noise(tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**SMALL, num_register_tokens=4)), scale=0.15)
    return model, _last(model), "last_hidden_state", "computed"


def clip():
    model = noise(tf.CLIPVisionModel(tf.CLIPVisionConfig(**SMALL)), scale=0.15)
    return model, lambda x: model(x, interpolate_pos_encoding=True).pooler_output, "pooler_output", "hf"


def siglip():
    model = noise(tf.SiglipVisionModel(tf.SiglipVisionConfig(**SMALL)), scale=0.15)
    return model, lambda x: model(x, interpolate_pos_encoding=True).pooler_output, "pooler_output", "hf"


@pytest.mark.parametrize(
    "source", [timm_plain, timm_registers, transformers_vit, dinov2, dinov2_with_registers, dinov3, clip, siglip]
)
def test_any_size_matches_the_models_own_library(folder, source):
    module, run, output, recipe = source()
    vit_zoo.export(module.eval(), "onnx", out="a.onnx", outputs=[output], dynamic="hw")
    artifact = vit_zoo.open("a.onnx")
    assert artifact.about.export["dynamic"] == recipe
    for size in ((48, 48), (64, 96), (16, 112), (120, 32)):
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            wanted = run(x).numpy()
        given = artifact.run(x.numpy())[output]
        assert np.abs(given - wanted).max() <= 3e-5 * np.abs(wanted).max(), size
