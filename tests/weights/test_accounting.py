"""Tests that every tensor of a checkpoint is used once, ignored as known, or named in an error."""

from __future__ import annotations

import re

import pytest

from support.cases import FACTS, case
from support.transformers_classes import CLASSES, built
from vit_zoo.errors import RefusedContent
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.pickles import tensors_of
from vit_zoo.files.stored import Stored
from vit_zoo.weights.detect import detect
from vit_zoo.weights.read import read
from vit_zoo.weights.sidecar import Sidecar

# of each dialect a case, whose every tensor is damaged in turn
DAMAGED = {
    "big_vision": "bv_siglip_two_towers",
    "deit3": "deit3_layerscale",
    "dinov2": "dinov2_reg4",
    "dinov3": "dinov3_vit",
    "google": "google_npz_token",
    "hf-clip": "hf_clip_vision_proj",
    "hf-deit": "hf_deit_cls_only",
    "hf-dinov2": "hf_dinov2_reg_classifier",
    "hf-dinov3": "hf_dinov3",
    "hf-siglip": "hf_siglip_vision",
    "hf-vit": "hf_vit_cls",
    "keras-hub": "keras_vit_classifier",
    "open_clip": "open_clip_quickgelu",
    "timm": "timm_cls",
    "torchvision": "torchvision_vit",
    "vit-pytorch": "lucid_vit_cls",
    "vit-pytorch-simple": "lucid_simple_vit",
    "vit-pytorch-1.15": "lucid_v1_6_5",
    "vit-pytorch-0.40": "lucid_v0_40_2_mean",
    "vit-pytorch-0.6": "lucid_v0_6_8",
}
# A file without one of these is a whole file of another model: nobody can tell that it is missing.
OPTIONAL = re.compile(
    r".*(register_tokens|storage_tokens|reg_token)|.*embeddings\.distillation_token|visual\.proj|visual_projection\.weight"
    # known and read by nothing
    r"|.*mask_token|rope_embed\.periods|.*bias_mask|optimizer/.*|(params/)?(txt/.*|t|b)|logit_scale|text_projection"
    r"|(positional_embedding|token_embedding\.weight|ln_final\..*|transformer\.resblocks\..*)"
)


def parts(name):
    file, *_ = case(name)
    tensors = dict(read_checkpoint(file))
    return tensors, FACTS.get(name, {}), Sidecar.of(file, detect(tensors, where=file)).facts


def reshaped(tensor):
    return Stored(tensor.dtype, (*tensor.shape, 2), tensor.array)


@pytest.mark.parametrize("dialect", DAMAGED)
def test_every_tensor_of_a_case(dialect):
    tensors, facts, config = parts(DAMAGED[dialect])
    reading = read(tensors, facts, config=config, where="file")
    assert reading.dialect.name == dialect
    unknown = [key for key in tensors if OPTIONAL.fullmatch(key)]
    assert set(reading.unwanted) <= set(unknown)
    for key, tensor in tensors.items():
        rest = {name: t for name, t in tensors.items() if name != key}
        changes = {}
        if key not in unknown:
            changes = {
                "added": {**tensors, f"{key}_more": tensor},
                "removed": rest,
                "renamed": {**rest, f"{key}_x": tensor},
                "reshaped": {**rest, key: reshaped(tensor)},
            }
        for what, changed in changes.items():
            try:
                read(changed, facts, config=config, where="file")
            except RefusedContent as error:
                message = str(error)
            else:
                raise AssertionError(f"{key} {what}, and nobody noticed")
            named = {f"{key}_more", f"{key}_x"} if what in ("added", "renamed") else {key}
            assert any(f"'{name}'" in message for name in (*named, key)), (what, key, message)


@pytest.mark.parametrize("name", CLASSES)
def test_every_tensor_of_a_class_of_transformers(name):
    peer, *_ = built(name)
    state = tensors_of(peer.state_dict(), where="peer")
    config = detect(state, where="peer").facts_from_module(peer)
    unwanted = read(state, {}, config=config, where="file").unwanted
    for key, tensor in state.items():
        with pytest.raises(RefusedContent, match=re.escape(f"{key}_more")):
            read({**state, f"{key}_more": tensor}, {}, config=config, where="file")
        if key not in unwanted and not OPTIONAL.fullmatch(key):
            with pytest.raises(RefusedContent):
                read({n: t for n, t in state.items() if n != key}, {}, config=config, where="file")
