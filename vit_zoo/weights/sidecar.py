"""What a library's config beside a checkpoint says of it: transformers', timm's, open_clip's or keras-hub's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_zoo.files import read_json
from vit_zoo.preprocess import Preprocess
from vit_zoo.weights.configs.image_processors import of_hf, of_timm
from vit_zoo.weights.translate import Dialect


@dataclass(frozen=True)
class Beside:
    """Fields of the spec, the words of the classes, and how images are prepared."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None

    @classmethod
    def of(cls, checkpoint: Path, dialect: Dialect) -> Beside:
        """From the config in the checkpoint's folder, if its library is that of the dialect."""
        name = "open_clip_config.json" if dialect.name in ("open_clip", "openai-clip") else "config.json"
        path = checkpoint.with_name(name)
        if not path.is_file() or path == checkpoint:
            return cls()
        config = read_json(path)
        if dialect.name.startswith("hf-") and isinstance(config.get("model_type"), str):
            from vit_zoo.weights.configs.hf import facts_of_config, labels_of

            beside = path.with_name("preprocessor_config.json")
            images = of_hf(read_json(beside)) if beside.is_file() else None
            return cls(facts_of_config(config, where=path), labels_of(config), images)
        if dialect.name.startswith(("timm", "deit3", "vitzoo")) and isinstance(config.get("architecture"), str):
            from vit_zoo.weights.configs.timm import facts_of_config as timm_facts
            from vit_zoo.weights.configs.timm import labels_of as timm_labels

            return cls(timm_facts(config, where=path), timm_labels(config), of_timm(config))
        if dialect.name == "keras-hub":
            from vit_zoo.weights.dialects.keras_hub import facts_of_config as keras_facts

            return cls(keras_facts(config))
        if name == "open_clip_config.json":
            from vit_zoo.weights.dialects.clip import facts_of_config as clip_facts

            return cls(clip_facts(config))
        return cls()
