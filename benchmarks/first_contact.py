"""Comparison of one public checkpoint of each dialect with its own library. Run it by hand where there is a network.

    python benchmarks/first_contact.py [NAME...] > first_contact.json

One checkpoint of each dialect and family is loaded from the Hub by `vit_zoo.load("hf-hub:...")` and by timm or transformers.
The result contains the relative difference of their outputs for the same random images, the commit, and the licence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import vit_zoo
from support import peers
from vit_zoo.errors import VitzooError

# repository, its library, the class of transformers, and the output to compare
CHECKPOINTS = {
    "timm augreg": ("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "timm", None, "logits"),
    "timm deit distilled": ("timm/deit_tiny_distilled_patch16_224.fb_in1k", "timm", None, "logits"),
    "timm deit3": ("timm/deit3_small_patch16_224.fb_in1k", "timm", None, "logits"),
    "timm dinov2 registers": ("timm/vit_small_patch14_reg4_dinov2.lvd142m", "timm", None, "pooler_output"),
    "timm siglip": ("timm/vit_base_patch16_siglip_224.webli", "timm", None, "pooler_output"),
    "transformers vit": ("google/vit-base-patch16-224", "transformers", "ViTForImageClassification", "logits"),
    "transformers deit": (
        "facebook/deit-tiny-distilled-patch16-224", "transformers", "DeiTForImageClassificationWithTeacher", "logits",
    ),
    "transformers dinov2": ("facebook/dinov2-small", "transformers", "Dinov2Model", "last_hidden_state"),
    "transformers dinov2 registers": (
        "facebook/dinov2-with-registers-small", "transformers", "Dinov2WithRegistersModel", "last_hidden_state",
    ),
    "transformers siglip": ("google/siglip-base-patch16-224", "transformers", "SiglipVisionModel", "last_hidden_state"),
    "transformers clip": ("openai/clip-vit-base-patch32", "transformers", "CLIPVisionModel", "last_hidden_state"),
}  # fmt: skip
TOLERANCE = 1e-4  # relative difference; both libraries compute in float32


def compare(repo: str, library: str, auto: str | None, value: str) -> dict[str, object]:
    model = vit_zoo.load(f"hf-hub:{repo}", check="full").eval()
    spec = model.spec
    images = torch.randn(2, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.features(images, value)[value]
        if library == "timm":
            theirs = peers.timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()(images)
        else:
            theirs = getattr(getattr(peers.transformers, str(auto)).from_pretrained(repo).eval()(pixel_values=images), value)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    about = {"source": model.config.source, "licence": model.config.licence, "preprocess": str(model.config.preprocess)}
    return {"relative difference": difference, "ok": difference <= TOLERANCE, **about}


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(CHECKPOINTS)
    results: dict[str, object] = {}
    for name in chosen:
        try:
            results[name] = compare(*CHECKPOINTS[name])
        except VitzooError as error:
            results[name] = {"ok": False, "error": str(error)}
    print(json.dumps(results, indent=2))
    sys.exit(not all(dict(each)["ok"] for each in results.values()))  # type: ignore[call-overload]
