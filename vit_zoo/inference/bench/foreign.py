"""Models of other libraries as rows: `timm:NAME`, `torchvision:NAME` and `transformers:NAME`, with seeded random weights.

They are built by their own library and run its code; nothing of them is downloaded but a config that transformers does not have.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, MissingDependency, did_you_mean, shown

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("timm", "transformers", "torchvision")
SIZE = 224  # of the images of a model that states none


@dataclass(frozen=True)
class Foreign:
    """An architecture of another library."""

    library: str
    name: str

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Foreign:
        """Parse `LIBRARY:NAME`. Raises InputError if there is no name."""
        library, _, name = text.partition(":")
        if not name:
            raise InputError(f"expected {library}:NAME, got {shown(text)}")
        return cls(library, name)

    def check_installed(self) -> None:
        """Raise MissingDependency without the library."""
        if find_spec(self.library) is None:
            raise MissingDependency(f"{self} needs {self.library}", hint=f"pip install {self.library}")

    def make(self, seed: int) -> nn.Module:
        """Return the module with random weights, in eval mode. Raises InputError for a name that the library does not know."""
        import torch

        self.check_installed()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module: nn.Module = {"timm": _timm, "transformers": _transformers, "torchvision": _torchvision}[self.library](self)
        return module.eval()


def is_foreign(text: object) -> bool:
    """Return whether a target is written as one of another library."""
    return isinstance(text, str) and text.partition(":")[0] in LIBRARIES and ":" in text


def input_shape(module: nn.Module) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a module takes, as far as it states them."""
    stated = getattr(module, "pretrained_cfg", None) or {}
    if "input_size" in stated:
        channels, height, width = stated["input_size"]
        patch = getattr(module, "patch_embed", None)
        size = getattr(patch, "img_size", None) or (height, width)
        return int(channels), int(size[0]), int(size[1])
    config = getattr(module, "config", module)
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None) or SIZE
    height, width = (size, size) if isinstance(size, int) else size
    channels = getattr(config, "num_channels", 3)
    return int(channels), int(height), int(width)


def _timm(of: Foreign) -> nn.Module:
    timm = _imported("timm")
    if not timm.is_model(of.name):
        raise InputError(f"timm has no model of this name{did_you_mean(of.name, timm.list_models())}", where=of)
    return timm.create_model(of.name, pretrained=False)  # type: ignore[no-any-return]


def _torchvision(of: Foreign) -> nn.Module:
    models = _imported("torchvision.models")
    known = models.list_models(models)
    if of.name not in known:
        raise InputError(f"torchvision has no classifier of this name{did_you_mean(of.name, known)}", where=of)
    return models.get_model(of.name, weights=None)  # type: ignore[no-any-return]


def _transformers(of: Foreign) -> nn.Module:
    """Make a classifier, or the bare model where transformers has none of this type, from a type, a folder or a repository."""
    transformers = _imported("transformers")
    hint = "name a model type of transformers, such as vit, a folder with a config.json, or ORG/NAME"
    is_type = of.name in transformers.CONFIG_MAPPING
    if not is_type and "/" not in of.name and not Path(of.name).is_dir():
        near = did_you_mean(of.name, list(transformers.CONFIG_MAPPING.keys()))
        raise InputError(f"transformers has no model type of this name{near}", where=of, hint=hint)
    try:
        config = (transformers.AutoConfig.for_model if is_type else transformers.AutoConfig.from_pretrained)(of.name)
        config = getattr(config, "vision_config", config)  # of a model of images and texts, its image tower
        mapping = _imported("transformers.models.auto.modeling_auto")
        classifies = type(config) in mapping.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
        auto = transformers.AutoModelForImageClassification if classifies else transformers.AutoModel
        return auto.from_config(config)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"transformers cannot make it: {reason}", where=of, hint=hint) from None


def _imported(name: str) -> Any:
    """Import a module of a library that is installed. Raises MissingDependency if its installation is broken."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # of torchvision built for another torch, an error of torch's operators
        library = name.partition(".")[0]
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        hint = f"pip install --upgrade {library} torchvision torch installs versions that fit together"
        raise MissingDependency(f"{library} cannot be imported: {reason}", hint=hint) from None
