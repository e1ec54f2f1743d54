"""What the code behind timm's names asks of its classes, recorded without building a model."""

from __future__ import annotations

import dataclasses
import functools
import sys

from support import peers

SIZES = {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "ref_feat_shape", "pos_embed_grid_size"}
MODULES = ("vision_transformer", "deit", "eva", "beit", "naflexvit")


class Built(Exception):
    """Carries the class and its arguments out of a function that would build a model."""


def settings(monkeypatch):
    """The class and the arguments behind each name of timm's modules of plain ViTs, Eva and NaFlexVit."""

    def recorded(cls, variant, pretrained, cfg=None, **arguments):
        raise Built(cls.__name__, arguments if cfg is None else {**dataclasses.asdict(cfg), **arguments})

    found = {}
    with monkeypatch.context() as patch:
        for module in MODULES:
            patch.setattr(sys.modules[f"timm.models.{module}"], "build_model_with_cfg", recorded)
        for module in MODULES:
            for name in peers.timm.list_models(module=module):
                try:
                    peers.timm.model_entrypoint(name)()
                except Built as built:
                    found[name] = built.args
    return found


def kind(cls, arguments):
    """A text that is the same for names that differ in sizes only."""
    rows = sorted((name, _plain(value)) for name, value in arguments.items() if name not in SIZES)
    return cls + str(rows) + str(arguments.get("ref_feat_shape"))


def _plain(value):
    if isinstance(value, functools.partial):
        return f"{value.func.__qualname__}{sorted(value.keywords.items(), key=str)}"
    return getattr(value, "__qualname__", str(value))
