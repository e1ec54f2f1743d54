"""Tests of `ViT` as a replacement of vit-pytorch's class: constructor, README example, weights and layers."""

from __future__ import annotations

import pytest
import torch

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo import Attention, FeedForward, Transformer, ViT

EXAMPLE = {
    "image_size": 256, "patch_size": 32, "num_classes": 1000, "dim": 1024, "depth": 6, "heads": 16, "mlp_dim": 2048,
    "dropout": 0.1, "emb_dropout": 0.1,
}  # fmt: skip


def test_readme_example():
    v = ViT(**EXAMPLE)
    preds = v(torch.randn(1, 3, 256, 256))
    assert preds.shape == (1, 1000)
    assert sum(p.numel() for p in v.parameters()) == v.spec.params == 54_630_376
    with torch.device("meta"):
        theirs = peers.vit_pytorch.ViT(**EXAMPLE)
    assert sum(p.numel() for p in theirs.parameters()) == 54_630_376


def test_sizes_are_numbers_pairs_or_lists():
    small = {"num_classes": 5, "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
    assert ViT(image_size=[16, 32], patch_size=(8, 16), **small).spec.grid == (2, 2)
    assert ViT(image_size=16, patch_size=8, **small).spec.grid == (2, 2)
    tokens = ViT(image_size=16, patch_size=8, **{**small, "num_classes": 0})(torch.randn(2, 3, 16, 16))
    assert tokens.shape == (2, 5, 16)
    mean = ViT(image_size=16, patch_size=8, pool="mean", **small)
    assert not hasattr(mean, "cls_token")
    assert mean.pos_embed.shape == (1, 4, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 250}, "does not divide"),
        ({"pool": "max"}, "pool 'max'"),
        ({"depth": 0}, "depth = 0"),
        ({"heads": True}, "heads = True"),
        ({"dropout": 1.5}, "dropout = 1.5"),
        ({"dim": 10**6, "mlp_dim": 10**6}, "parameters; the limit"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(vit_zoo.VitzooError, match=message):
        ViT(**{**EXAMPLE, **change})


def test_a_smaller_image_is_refused():
    """The original silently takes the first rows of the position table."""
    v = ViT(**{**EXAMPLE, "depth": 1})
    with pytest.raises(ValueError, match="expected images of shape"):
        v(torch.randn(1, 3, 128, 128))


PARTS = {
    "Attention": (lambda m: m.Attention(32, heads=2, dim_head=24, dropout=0.3)),
    "Attention, one head": (lambda m: m.Attention(32, heads=1, dim_head=32)),
    "FeedForward": (lambda m: m.FeedForward(32, 64, dropout=0.3)),
    "Transformer": (lambda m: m.Transformer(32, 2, 2, 16, 64, dropout=0.3)),
}


@pytest.mark.parametrize("part", PARTS)
def test_layers_against_the_original(part):
    theirs, ours = noise(PARTS[part](peers.vit_pytorch.vit)), PARTS[part](vit_zoo).eval()
    # the parts hold the same tensors in the same order, but for the norm at the end of Transformer, which is first there
    source = [p for n, p in theirs.named_parameters() if n not in ("norm.weight", "norm.bias") or part != "Transformer"]
    source += [theirs.norm.weight, theirs.norm.bias] if part == "Transformer" else []
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), source, strict=True):
            mine.copy_(other)
        x = torch.randn(2, 5, 32)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=2e-6)
        assert (Attention, FeedForward, Transformer) == (vit_zoo.Attention, vit_zoo.FeedForward, vit_zoo.Transformer)


def test_dropouts_train_as_in_the_original():
    """Same weights, same random numbers, same logits: each dropout has the place and the rate of the original."""
    theirs = noise(peers.article_vit(emb_dropout=0.2, dropout=0.0)).train()
    ours = vit_zoo.load(theirs, image_size=(32, 48), emb_dropout=0.2).train()
    images = torch.randn(4, 3, 32, 48)
    torch.manual_seed(5)
    wanted = theirs(images)
    torch.manual_seed(5)
    torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5)
    theirs = noise(peers.article_vit(dropout=0.3)).train()
    ours = vit_zoo.load(theirs, image_size=(32, 48), dropout=0.3).train()
    torch.manual_seed(5)
    wanted = theirs(images)
    torch.manual_seed(5)
    torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5)
