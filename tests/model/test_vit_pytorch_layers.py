"""Tests of `ViT` as a replacement of vit-pytorch's class: constructor, README example, weights and layers."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

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


def in_our_order(theirs, part):
    """The parameters of an original part: in the same order, but for the norm at the end of Transformer, which is first there."""
    parameters = list(theirs.parameters())
    return [*parameters[2:], *parameters[:2]] if part == "Transformer" else parameters


@pytest.mark.parametrize("part", PARTS)
def test_layers_against_the_original(part):
    theirs, ours = noise(PARTS[part](peers.vit_pytorch.vit)), PARTS[part](vit_zoo).eval()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), in_our_order(theirs, part), strict=True):
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


MODEL = {
    "image_size": 8, "patch_size": 4, "channels": 1, "num_classes": 10, "dim": 32, "depth": 2, "heads": 2, "dim_head": 24,
    "mlp_dim": 48,
}  # fmt: skip
MODELS = {"ViT": {}, "ViT, mean": {"pool": "mean"}, "ViT, no projection": {"heads": 1, "dim_head": 32}}


def distributions(make, count=20):
    """Mean, deviation, largest value and number of values of each parameter, over several models."""
    models = [make() for _ in range(count)]
    samples = [torch.cat([p.detach().flatten() for p in group]) for group in zip(*models, strict=True)]
    return [(x.mean().item(), x.std().item(), x.abs().max().item(), x.numel()) for x in samples]


def ours_and_theirs(case):
    """Functions that return a new model's parameters, in the same order."""
    if case in PARTS:
        yield lambda: list(PARTS[case](vit_zoo).parameters())
        yield lambda: in_our_order(PARTS[case](peers.vit_pytorch.vit), case)
        return
    options = {**MODEL, **MODELS[case]}
    yield lambda: [p for _, p in sorted(ViT(**options).named_parameters())]
    yield lambda: [p for _, p in sorted(vit_zoo.load(peers.vit_pytorch.ViT(**options)).named_parameters())]


@pytest.mark.parametrize("case", [*PARTS, *MODELS])
def test_initial_weights_have_the_distributions_of_the_original(case):
    """A uniform distribution has another ratio of largest value and deviation than a normal one."""
    ours, theirs = map(distributions, ours_and_theirs(case))
    for (mean, *mine), (their_mean, *other) in zip(ours, theirs, strict=True):
        deviation, largest, count = other
        assert mean == pytest.approx(their_mean, abs=7 * deviation / count**0.5 + 1e-7)
        assert mine == pytest.approx([deviation, largest, count], rel=0.15 if largest < 2 * deviation else 0.4)


def loss_on_digits(make, seed):
    """The mean loss of steps 41 to 50 of training on scikit-learn's digits."""
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float()[:, None] / 8 - 1, torch.from_numpy(digits.target)
    torch.manual_seed(seed)
    model = make(**{**MODEL, "patch_size": 2, "depth": 4}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
    losses = []
    for batch in torch.randint(len(images), (50, 48)):
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[40:]) / 10


def test_training_converges_as_the_originals():
    """With the initial weights of the published families, the loss is higher than the spread of the seeds."""
    ours, theirs = (torch.tensor([loss_on_digits(make, seed) for seed in range(5)]) for make in (ViT, peers.vit_pytorch.ViT))
    assert (ours.mean() - theirs.mean()).abs() < 2 * theirs.std(), (ours, theirs)
