"""A sweep over vit-pytorch: the file of each of its image classifiers gives the class's own output, or is refused by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import torch

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.errors import VitzooError

SIZES = {
    "image_size": 32, "patch_size": 8, "num_classes": 10, "dim": 48, "depth": 2, "heads": 3, "mlp_dim": 72, "dim_head": 16,
    "channels": 3, "cls_depth": 1, "num_register_tokens": 4, "patch_dropout": 0.0, "num_memories": 3, "freq_patch_size": 8,
    "num_parallel_branches": 2, "num_residual_streams": 2,
}  # fmt: skip
# of classes with other arguments
OTHERS = {
    "ats_vit.ViT": {"max_tokens_per_depth": (8, 4)},
    "cct.CCT": {
        "img_size": 32, "embedding_dim": 48, "num_layers": 2, "num_heads": 3, "mlp_ratio": 2.0, "num_classes": 10,
        "positional_embedding": "learnable",
    },
    "cross_vit.CrossViT": {"sm_dim": 48, "lg_dim": 48, "sm_patch_size": 8, "lg_patch_size": 16, "depth": 1},
    "levit.LeViT": {"dim": (48, 96), "depth": 1, "heads": (3, 6), "stages": 2, "mlp_mult": 2, "image_size": 64},
    "look_vit.LookViT": {"highres_patch_size": 4},
    "mobile_vit.MobileViT": {
        "image_size": (64, 64), "dims": [48, 48, 48], "channels": [8] * 11, "num_classes": 10, "patch_size": (2, 2),
    },
    "nest.NesT": {"num_hierarchies": 2, "block_repeats": (1, 1), "dim": 48, "heads": 3},
    "pit.PiT": {"depth": (1, 1), "patch_size": 8},
    "wwt.WWT": {"num_slots": 4},
}  # fmt: skip
# of images in time or of several sizes, or built of other modules of the user
NOT_OF_IMAGES = {
    "efficient.ViT", "na_vit_nested_tensor_3d.NaViT", "simple_flash_attn_vit_3d.SimpleViT", "simple_vit_3d.SimpleViT",
    "vit_3d.ViT", "vivit.ViViT", "vivit_with_moss.ViViT",
}  # fmt: skip
READ = {
    "simple_vit.SimpleViT", "simple_vit_with_patch_dropout.SimpleViT", "simple_vit_with_register_tokens.SimpleViT", "vit.ViT",
}  # fmt: skip


def classes_of(module_name):
    """The classifiers that a module of the library defines, by their names."""
    module = importlib.import_module(f"vit_pytorch.{module_name}")
    for name, class_ in inspect.getmembers(module, inspect.isclass):
        if class_.__module__ == module.__name__ and issubclass(class_, torch.nn.Module):
            parameters = inspect.signature(class_.__init__).parameters
            if {"image_size", "img_size"} & set(parameters) and "num_classes" in parameters:
                yield f"{module_name}.{name}", class_, set(parameters)


def built(name, class_, parameters):
    arguments = {key: value for key, value in SIZES.items() if key in parameters}
    return noise(class_(**{**arguments, **OTHERS.get(name, {})}), scale=0.15).eval()


def difference(model, size, tmp_path, **facts):
    """How far our output is from the module's, or the refusal."""
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    try:
        ours = vit_zoo.load(tmp_path / "weights.pt", **facts).eval()
    except VitzooError as error:
        return error
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return float((ours(images) - model(images)).abs().max())


MODULES = sorted(each.name for each in pkgutil.iter_modules(peers.vit_pytorch.__path__))


def test_every_classifier_is_read_or_refused(tmp_path):
    read, refused, unbuilt = set(), set(), {}
    for module_name in MODULES:
        if module_name == "vaat":  # of video with sound
            continue
        for name, class_, parameters in classes_of(module_name):
            if name in NOT_OF_IMAGES:
                continue
            try:
                model = built(name, class_, parameters)
            except Exception as error:
                unbuilt[name] = repr(error)
                continue
            result = difference(model, 32, tmp_path, heads=3, image_size=32)
            if isinstance(result, VitzooError):
                assert result.code == 7, (name, result)
                refused.add(name)
            else:
                assert result < 1e-5, name
                read.add(name)
    assert unbuilt == {}
    assert read == READ
    assert len(read | refused) >= 40
