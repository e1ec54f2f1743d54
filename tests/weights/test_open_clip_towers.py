"""Tests of open_clip's own towers without their config: what the file does not tell about pooling is asked, never assumed."""

from __future__ import annotations

import pytest
import torch

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.errors import InputError, RefusedContent

FACTS = {"heads": 3, "act": "gelu"}


def tower(**options):
    sizes = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "heads": 3, "mlp_ratio": 2.0, "output_dim": 24}
    return noise(peers.open_clip.transformer.VisionTransformer(**{**sizes, **options})).eval()


def saved(peer):
    torch.save({f"visual.{name}": tensor for name, tensor in peer.state_dict().items()}, "tower.pt")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        return images, peer(images)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("no_ln_pre", [False, True])
def test_average_pooling(no_ln_pre, after, folder):
    images, wanted = saved(tower(no_ln_pre=no_ln_pre, pool_type="avg", final_ln_after_pool=after))
    facts = {**FACTS, **({"pre_norm": False} if no_ln_pre else {})}
    if no_ln_pre:
        with pytest.raises(RefusedContent, match="state pre_norm"):
            vit_zoo.load("tower.pt", **FACTS)
        with pytest.raises(InputError, match=r"cannot infer pool from the file.*pool=cls or mean"):
            vit_zoo.load("tower.pt", **facts)
    with pytest.raises(InputError, match=r"cannot infer final_norm from the file.*final_norm=before_pool or after_pool"):
        vit_zoo.load("tower.pt", **facts, pool="mean")
    model = vit_zoo.load("tower.pt", **facts, pool="mean", final_norm="after_pool" if after else "before_pool").eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(images), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("no_ln_pre", [False, True])
def test_the_class_token(no_ln_pre, folder):
    images, wanted = saved(tower(no_ln_pre=no_ln_pre))
    facts = {**FACTS, **({"pre_norm": False, "pool": "cls"} if no_ln_pre else {})}
    with torch.inference_mode():
        torch.testing.assert_close(vit_zoo.load("tower.pt", **facts).eval()(images), wanted, rtol=0, atol=1e-5)
