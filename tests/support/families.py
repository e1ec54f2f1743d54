"""A small, noised model of every kind in the registry: names whose specs differ by more than sizes."""

from __future__ import annotations

import torch

import vit_zoo
from support.models import noise
from vit_zoo.registry.models import get_config

SIZES = {"image_size": (32, 48), "patch_size": (8, 16), "dim": 48, "depth": 2, "heads": 3, "dim_head": 16, "mlp_dim": 96}
WITHOUT_EFFECT = {"dropout", "emb_dropout", "drop_path"}  # at inference
COUNTS = ("num_classes", "registers", "representation", "projection")


def _kind(name):
    """A spec without its sizes."""
    fields = vit_zoo.get_spec(name).model_dump()
    chosen = {name: value for name, value in fields.items() if name not in {*SIZES, *WITHOUT_EFFECT, *COUNTS}}
    covers = fields["pos_covers"] if fields["class_token"] or fields["registers"] else "patches"
    return tuple({**chosen, **{name: bool(fields[name]) for name in COUNTS}, "pos_covers": covers}.items())


KINDS = list({_kind(name): name for name in reversed(vit_zoo.list_models())}.values())[::-1]


def _covering(kinds):
    """Few kinds that together have every value of every field that some kind has, for what takes long for each."""
    values = {name: set(_kind(name)) for name in kinds}
    chosen, missing = [], set().union(*values.values())
    while missing:
        best = max(values, key=lambda name: len(values[name] & missing))
        chosen.append(best)
        missing -= values[best]
    return chosen


COVERING = _covering(KINDS)


def small_model(name, *, scale=0.15):
    """The model of a name, small, with random values for every parameter and preprocessing for its size."""
    spec = vit_zoo.get_spec(name)
    fields = {**SIZES, "num_classes": 11 if spec.num_classes else 0, "registers": 2 if spec.registers else 0}
    fields |= {"representation": 24} if spec.representation else {}
    fields |= {"projection": 24} if spec.projection else {}
    fields |= {"pool_mlp_dim": 72} if spec.pool_mlp_dim else {}
    model = vit_zoo.create(name, **fields)
    preprocess = get_config("vit_b16").preprocess.for_size(SIZES["image_size"])
    model.config = model.config.replace(random_seed=None, preprocess=preprocess, labels=None)
    return noise(model, scale=scale)


def images_for(model, count=2):
    return torch.randn(count, model.spec.channels, *model.spec.image_size, generator=torch.Generator().manual_seed(3))
