"""Tests of resized positions and patch projections against each source's own code."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torchvision.models.vision_transformer import interpolate_embeddings

from support import peers
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.files.pickles import stored
from vit_zoo.model.resize_recipes import RECIPES
from vit_zoo.weights.resize import resize_kernel, resize_positions


def table(prefix, grid, dtype=torch.float32):
    return torch.randn(1, prefix + grid[0] * grid[1], 12, generator=torch.Generator().manual_seed(3)).to(dtype)


def ours(positions, prefix, old, new, recipe):
    found = resize_positions(stored("pos", positions, where="x"), prefix, old, new, recipe)
    array = torch.from_numpy(found.array())
    assert tuple(array.shape) == found.shape
    return array.view(torch.bfloat16) if found.dtype == "BF16" else array


def timm(positions, prefix, old, new, **options):
    return resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=prefix, **options)


def hf(positions, prefix, old, new):
    """ViTEmbeddings' own method, which knows one prefix and square old grids."""
    peer = peers.transformers_vit("ViTModel", "ViTConfig", hidden_size=12, image_size=8 * old[0])
    peer.embeddings.position_embeddings = torch.nn.Parameter(positions)
    tokens = torch.empty(1, 1 + new[0] * new[1], 12)
    return peer.embeddings.interpolate_pos_encoding(tokens, 8 * new[0], 8 * new[1])


def torchvision(positions, prefix, old, new):
    state = interpolate_embeddings(8 * new[0], 8, {"encoder.pos_embedding": positions})
    return state["encoder.pos_embedding"]


def google(positions, prefix, old, new):
    """checkpoint.interpolate_posembed: scipy's zoom of the first order."""
    grid = positions[0, prefix:].reshape(*old, -1).numpy()
    zoomed = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    return torch.cat([positions[:, :prefix], torch.from_numpy(zoomed).reshape(1, new[0] * new[1], -1)], 1)


def dino(positions, prefix, old, new):
    """interpolate_pos_encoding of DINO's vision_transformer.py, which adds a tenth of a patch before it takes the scale."""
    grid = positions[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    h0, w0 = new[0] + 0.1, new[1] + 0.1
    grid = F.interpolate(grid, scale_factor=(h0 / old[0], w0 / old[1]), mode="bicubic")
    assert tuple(grid.shape[2:]) == new
    return torch.cat([positions[:, :prefix], grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)], 1)


def siglip2(positions, prefix, old, new):
    """Siglip2VisionEmbeddings' own method, for a batch of one."""
    from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

    resized = Siglip2VisionEmbeddings.resize_positional_embeddings(
        positions.reshape(*old, -1), torch.tensor([new]), max_length=new[0] * new[1]
    )
    return resized.reshape(1, new[0] * new[1], -1)


def jax_linear(old, new):
    """The matrix, new x old, of jax.image.resize(..., "linear"): a triangle as wide as the larger of both steps."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)) / max(old / new, 1))
    return weights / weights.sum(1, keepdims=True)


def flexi_at_run_time(positions, prefix, old, new):
    """_Model of models/proj/flexi/vit.py, written in numpy."""
    grid = positions.reshape(*old, -1).numpy()
    grid = np.einsum("yh,xw,hwd->yxd", jax_linear(old[0], new[0]), jax_linear(old[1], new[1]), grid)
    return torch.from_numpy(grid.reshape(1, new[0] * new[1], -1)).float()


def article(positions, prefix, old, new):
    """ViT.forward of vit-pytorch: `x + pos_embedding[:seq]`."""
    return positions[:, : prefix + new[0] * new[1]]


GRIDS = [((4, 4), (6, 6)), ((7, 7), (4, 4))]
SMALLER = [((7, 7), (4, 4)), ((6, 6), (3, 8)), ((4, 7), (2, 9))]
UNEVEN = [((4, 4), (6, 9)), ((6, 6), (3, 8)), ((4, 7), (9, 5))]
PEERS = {
    "timm": (timm, [0, 1, 5], GRIDS + UNEVEN),
    "open_clip": (timm, [1], GRIDS),  # open_clip's resize_pos_embed: bicubic with antialias, as timm's
    "flexivit": (lambda *a: timm(*a, interpolation="bilinear", antialias=False), [0, 1], GRIDS + UNEVEN),
    "hf": (hf, [1], [g for g in GRIDS + UNEVEN if g[0][0] == g[0][1]]),
    "torchvision": (torchvision, [1], GRIDS),
    "google": (google, [0, 1], GRIDS + UNEVEN),
    "dino": (dino, [1], GRIDS + UNEVEN),
    "dinov2": (dino, [1], GRIDS),
    "naflex": (siglip2, [0], GRIDS + UNEVEN),
    "big_vision-flexivit": (flexi_at_run_time, [0], GRIDS + UNEVEN),
    "vit-pytorch": (article, [0, 1], SMALLER),
}
CASES = [(recipe, prefix, *grids) for recipe, (_, prefixes, many) in PEERS.items() for prefix in prefixes for grids in many]


def test_every_recipe_has_a_peer():
    assert set(PEERS) == set(RECIPES)


@pytest.mark.parametrize(("recipe", "prefix", "old", "new"), CASES)
def test_positions(recipe, prefix, old, new):
    positions = table(prefix, old)
    found = ours(positions, prefix, old, new, recipe)
    torch.testing.assert_close(found, PEERS[recipe][0](positions, prefix, old, new), rtol=0, atol=2e-5)
    assert torch.equal(found[:, :prefix], positions[:, :prefix])


def test_recipes_differ():
    """No recipe can replace another by mistake: on noise they differ by more than the tolerance above."""
    found = {name: ours(table(1, (6, 8)), 1, (6, 8), (5, 7), name) for name in RECIPES}
    same = {(a, b) for a in found for b in found if a < b and (found[a] - found[b]).abs().max() < 1e-2}
    assert same == {("open_clip", "timm"), ("dino", "dinov2"), ("big_vision-flexivit", "naflex")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_data_types_are_kept(dtype):
    positions = table(1, (4, 4), dtype)
    found = ours(positions, 1, (4, 4), (6, 6), "timm")
    assert found.dtype is dtype
    wanted = timm(positions.double(), 1, (4, 4), (6, 6))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol={torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-6))
    assert torch.equal(found[:, :1], positions[:, :1])


@pytest.mark.parametrize("new", [(16, 16), (5, 5), (12, 8)])
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("timm", ("bicubic", True)), ("flexivit", ("bilinear", False)),
        ("big_vision-flexivit", ("bilinear", False)), ("naflex", ("bilinear", True)),
    ],
)  # fmt: skip
def test_patch_projections(new, recipe, options):
    kernel = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    found = resize_kernel(stored("proj", kernel, where="x"), new, recipe)
    wanted = resample_patch_embed(kernel, list(new), interpolation=options[0], antialias=options[1])
    np.testing.assert_allclose(found.array(), wanted.numpy(), rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_the_same_size_keeps_the_tensor_and_wrong_arguments_are_refused():
    tensor = stored("pos", table(1, (4, 4)), where="x")
    assert resize_positions(tensor, 1, (4, 4), (4, 4), "hf") is tensor
    kernel = Stored("F32", (2, 3, 8, 8), lambda: np.zeros((2, 3, 8, 8), np.float32))
    assert resize_kernel(kernel, (8, 8), "timm") is kernel
    with pytest.raises(RefusedContent, match=r"expected 0 \+ 4x4 positions, got 17"):
        resize_positions(tensor, 0, (4, 4), (6, 6), "hf")
    with pytest.raises(InputError, match="unknown recipe 'lanczos'; choose from timm, open_clip"):
        resize_positions(tensor, 1, (4, 4), (6, 6), "lanczos")
    with pytest.raises(InputError, match=r"its library is unknown.*state it: resize=timm, say; the recipes are timm, open_clip"):
        resize_positions(tensor, 1, (4, 4), (6, 6), "unstated")
    with pytest.raises(InputError, match=r"takes the first positions of a table: 4x4 are too few for 3x6.*resize=timm"):
        resize_positions(tensor, 1, (4, 4), (3, 6), "vit-pytorch")
    for recipe in ("vit-pytorch", "google"):
        with pytest.raises(InputError, match=rf"recipe '{recipe}' keeps the patch size"):
            resize_kernel(kernel, (4, 4), recipe)
