"""Clients of a repository: the libraries that can load a model, and the config and weights that they read from one folder.

timm reads `architecture`, `model_args` and `pretrained_cfg` in config.json, and model.safetensors; transformers reads
`model_type` and its fields, and the file that `transformers_weights` names (since 4.52). Each ignores the other's.
Sources: timm 1.0.31, models/_hub.py; transformers 5.23, modeling_utils.py; transformers.js 4.3, src/models/registry.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.files import Stored
from vit_zoo.loading.checkpoint import Checkpoint

if TYPE_CHECKING:
    from vit_zoo.weights.write import Fit

HF_WEIGHTS = "transformers.safetensors"
# model types of transformers.js whose class reads the outputs of our graph; CLIP's expects other names
JS_MODEL_TYPES = ("vit", "vit_msn", "deit", "ijepa", "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model")
DTYPES = {"onnx/model.onnx": "fp32", "onnx/model_fp16.onnx": "fp16", "onnx/model_quantized.onnx": "q8"}  # transformers.js's
CLIENTS = ("vit_zoo", "timm", "transformers", "transformers.js", "optimum", "onnxruntime")


@dataclass(frozen=True)
class Profile:
    """The content of a repository for its clients. `source` is the model in model.safetensors."""

    source: Checkpoint
    config: Mapping[str, Any]  # the content of config.json
    hf_tensors: Mapping[str, Stored] | None  # the weights under transformers' names
    preprocessors: Mapping[str, Mapping[str, Any]]  # the files about image preparation for transformers
    reasons: Mapping[str, str]  # why a client cannot load it, by client

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(name for name in CLIENTS if name not in self.reasons)

    @property
    def architecture(self) -> str | None:
        """The name of transformers' class."""
        classes = self.config.get("architectures")
        return None if not classes else str(classes[0])

    @property
    def classifies(self) -> bool:
        """Whether the logits stand for classes; CLIP's are an embedding."""
        known = self.architecture is None or "ForImageClassification" in self.architecture
        return known and self.source.config.classes > 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that clients expect in the ONNX file."""
        config, spec = self.source.config, self.source.config.spec
        if spec.num_classes:
            return (config.output,)
        return ("last_hidden_state",) if spec.pool == "none" else ("last_hidden_state", "pooler_output")


def profile_of(source: Checkpoint, *, onnx: bool = True) -> Profile:
    """Return the content of a repository for every client that can express the model.

    `onnx` states whether the repository includes onnx/model.onnx.
    """
    from vit_zoo.weights.configs.image_processors import hf_files

    reasons: dict[str, str] = {}
    timm = _fit("timm", source, reasons, "timm")
    if timm is not None:  # an equivalent model: the class token's position may be stored differently
        source = replace(source, config=source.config.replace(spec=timm.equivalent.spec), tensors=timm.equivalent.tensors)
        assert set(timm.tensors) == set(timm.equivalent.spec.shapes())  # timm's names are ours, so both read the same file
    hf = _fit("hf", source, reasons, "transformers")
    document: dict[str, Any] = {}
    preprocessors: dict[str, dict[str, Any]] = {}
    if hf is not None:
        assert hf.config is not None
        document |= {**hf.config, "transformers_weights": HF_WEIGHTS}
        if source.config.preprocess is not None:
            preprocessors = hf_files(source.config.preprocess)
    elif timm is not None:
        del reasons["transformers"]  # its TimmWrapperModel reads timm's files
    if timm is not None:
        assert timm.config is not None
        document |= timm.config
    document |= source.config.document()
    if source.config.problem_type is not None and not source.config.is_embedding:  # transformers reads it for timm's models too
        document["problem_type"] = source.config.problem_type
    profile = Profile(source, document, None if hf is None else hf.tensors, preprocessors, reasons)
    kind = None if hf is None else str(document["model_type"])
    if not onnx:
        reasons |= dict.fromkeys(("transformers.js", "optimum", "onnxruntime"), "model.onnx was left out")
    elif kind is None:
        reasons |= dict.fromkeys(("transformers.js", "optimum"), "transformers has no class for it")
    else:
        if kind not in JS_MODEL_TYPES:
            reasons["transformers.js"] = f"its class for {kind} expects other outputs"
        elif not preprocessors:
            reasons["transformers.js"] = "the config has no preprocessing"
        elif profile.classifies and source.config.activation != "softmax":
            reasons["transformers.js"] = "its pipeline takes the softmax of the outputs, whatever the config states"
        if not profile.classifies:
            reasons["optimum"] = "it has no class for image features"
    return profile


def _fit(target: str, source: Checkpoint, reasons: dict[str, str], client: str) -> Fit | None:
    from vit_zoo.weights.write import fit

    try:
        return fit(target, source.config, source.tensors, (), with_config=True)
    except NotRepresentable as error:
        reasons[client] = error.message
        return None
