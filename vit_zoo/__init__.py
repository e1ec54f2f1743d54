"""A Vision Transformer zoo and export toolkit: from any ViT to a small file that is verified to compute the same function.

Importing this package imports neither torch nor onnx. Each public name imports what it needs when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # without `typing`: the command line sets its signal handlers before it imports anything
if TYPE_CHECKING:
    from typing import Any

    from vit_zoo.api import convert, create, export, load, publish, pull, save, verify
    from vit_zoo.errors import (
        CannotWrite,
        CheckFailed,
        HubError,
        InputError,
        MissingDependency,
        NotRepresentable,
        RefusedContent,
        Stopped,
        VitzooError,
    )
    from vit_zoo.formats import open_artifact as open
    from vit_zoo.inference.bench import bench
    from vit_zoo.inference.embed import embed
    from vit_zoo.inference.evaluate import evaluate
    from vit_zoo.inference.predict import predict
    from vit_zoo.inference.probe import probe
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.model.vit import ViT
    from vit_zoo.model.vit_pytorch_layers import Attention, FeedForward, Transformer
    from vit_zoo.registry.models import get_spec, list_models, register
    from vit_zoo.self_check.check import selfcheck

# the module that defines each public name
_HOMES = {
    "Attention": "model.vit_pytorch_layers",
    "FeedForward": "model.vit_pytorch_layers",
    "Transformer": "model.vit_pytorch_layers",
    "CannotWrite": "errors",
    "CheckFailed": "errors",
    "HubError": "errors",
    "InputError": "errors",
    "MissingDependency": "errors",
    "NotRepresentable": "errors",
    "RefusedContent": "errors",
    "Stopped": "errors",
    "VitzooError": "errors",
    "convert": "api",
    "create": "api",
    "export": "api",
    "load": "api",
    "probe": "inference.probe",
    "publish": "api",
    "pull": "api",
    "save": "api",
    "selfcheck": "self_check.check",
    "verify": "api",
    "ViT": "model.vit",
    "get_spec": "registry.models",
    "list_models": "registry.models",
    "register": "registry.models",
    "embed": "inference.embed",
    "bench": "inference.bench",
    "evaluate": "inference.evaluate",
    "predict": "inference.predict",
    "ViTSpec": "model.spec",
    "open": "formats:open_artifact",
}

__all__ = [
    "Attention",
    "CannotWrite",
    "CheckFailed",
    "FeedForward",
    "HubError",
    "InputError",
    "MissingDependency",
    "NotRepresentable",
    "RefusedContent",
    "Stopped",
    "Transformer",
    "ViT",
    "ViTSpec",
    "VitzooError",
    "bench",
    "convert",
    "create",
    "embed",
    "evaluate",
    "export",
    "get_spec",
    "list_models",
    "load",
    "open",
    "predict",
    "probe",
    "publish",
    "pull",
    "register",
    "save",
    "selfcheck",
    "verify",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of this module's

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'vit_zoo' has no attribute {name!r}")
        from importlib import import_module

        module, _, attribute = _HOMES[name].partition(":")
        value = globals()[name] = getattr(import_module(f"vit_zoo.{module}"), attribute or name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
