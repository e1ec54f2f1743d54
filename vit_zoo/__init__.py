"""A Vision Transformer zoo and export toolkit: take any ViT, end with a small artifact proven to compute the same function.

Importing this package imports neither torch nor onnx; each name brings what it needs when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vit_zoo.article import Attention, FeedForward, Transformer
    from vit_zoo.errors import VitzooError
    from vit_zoo.formats import open_artifact as open
    from vit_zoo.line import convert, create, export, load, publish, pull, save, verify
    from vit_zoo.model import ViT
    from vit_zoo.registry import get_spec, list_models, register
    from vit_zoo.use.classify import predict
    from vit_zoo.vit_spec import ViTSpec

# where each public name lives
_HOMES = {
    "Attention": "article",
    "FeedForward": "article",
    "Transformer": "article",
    "VitzooError": "errors",
    "convert": "line",
    "create": "line",
    "export": "line",
    "load": "line",
    "publish": "line",
    "pull": "line",
    "save": "line",
    "verify": "line",
    "ViT": "model",
    "get_spec": "registry",
    "list_models": "registry",
    "register": "registry",
    "predict": "use.classify",
    "ViTSpec": "vit_spec",
    "open": "formats:open_artifact",
}

__all__ = [
    "Attention",
    "FeedForward",
    "Transformer",
    "ViT",
    "ViTSpec",
    "VitzooError",
    "convert",
    "create",
    "export",
    "get_spec",
    "list_models",
    "load",
    "open",
    "predict",
    "publish",
    "pull",
    "register",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vit_zoo' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _HOMES[name].partition(":")
    value = globals()[name] = getattr(import_module(f"vit_zoo.{module}"), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
