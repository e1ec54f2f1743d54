"""Which libraries can load a model, and what each of them reads in one folder: a union config and two layouts of weights.

timm reads `architecture`, `model_args` and `pretrained_cfg` in config.json, and model.safetensors; transformers reads
`model_type` and its fields, and the file that `transformers_weights` names (since 4.52); each leaves the other's alone.
Sources: timm 1.0.31, models/_hub.py; transformers 5.23, modeling_utils.py; transformers.js 4.3, src/models/registry.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.files import Stored
from vit_zoo.loading.source import Checkpoint

if TYPE_CHECKING:
    from vit_zoo.weights.write import Fit

THEIRS = "transformers.safetensors"
# the model types of transformers.js whose class takes what our graph gives; CLIP's asks for other names
BROWSER = ("vit", "deit", "ijepa", "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model")
DTYPES = {"onnx/model.onnx": "fp32", "onnx/model_fp16.onnx": "fp16", "onnx/model_quantized.onnx": "q8"}  # transformers.js's
CLIENTS = ("vit_zoo", "timm", "transformers", "transformers.js", "optimum", "onnxruntime")


@dataclass(frozen=True)
class Profile:
    """What a repository holds for its clients. `source` is the model as model.safetensors holds it."""

    source: Checkpoint
    config: Mapping[str, Any]  # the content of config.json
    theirs: Mapping[str, Stored] | None  # the weights under transformers' names
    preprocessor: Mapping[str, Any] | None  # the content of preprocessor_config.json
    reasons: Mapping[str, str]  # of each client that cannot load it, why

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(name for name in CLIENTS if name not in self.reasons)

    @property
    def architecture(self) -> str | None:
        """transformers' class."""
        found = self.config.get("architectures")
        return None if not found else str(found[0])

    @property
    def classifies(self) -> bool:
        """Whether its logits are of classes; CLIP's are an embedding."""
        known = self.architecture is None or "ForImageClassification" in self.architecture
        return known and self.source.config.spec.num_classes > 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those that clients expect of the ONNX file."""
        spec = self.source.config.spec
        if spec.num_classes:
            return ("logits",)
        return ("last_hidden_state",) if spec.pool == "none" else ("last_hidden_state", "pooler_output")


def profile_of(source: Checkpoint, *, onnx: bool = True) -> Profile:
    """The union of what the clients can express; `onnx`: whether an ONNX file goes along."""
    from vit_zoo.weights.configs.image_processors import to_hf

    reasons: dict[str, str] = {}
    timm = _fit("timm", source, reasons, "timm")
    if timm is not None:  # the class token's position may lie elsewhere, for the same function
        source = replace(source, config=source.config.replace(spec=timm.equivalent.spec), tensors=timm.equivalent.tensors)
        assert set(timm.tensors) == set(timm.equivalent.spec.shapes())  # timm's names are ours: one file is both's
    hf = _fit("hf", source, reasons, "transformers")
    document: dict[str, Any] = {}
    preprocessor = None
    if hf is not None:
        assert hf.config is not None
        document |= {**hf.config, "transformers_weights": THEIRS}
        if source.config.preprocess is not None:
            preprocessor = to_hf(source.config.preprocess)
    elif timm is not None:
        del reasons["transformers"]  # its TimmWrapperModel reads timm's
    if timm is not None:
        assert timm.config is not None
        document |= timm.config
    document |= source.config.document()
    found = Profile(source, document, None if hf is None else hf.tensors, preprocessor, reasons)
    kind = None if hf is None else str(document["model_type"])
    if not onnx:
        reasons |= dict.fromkeys(("transformers.js", "optimum", "onnxruntime"), "model.onnx was left out")
    elif kind is None:
        reasons |= dict.fromkeys(("transformers.js", "optimum"), "it is no model of transformers")
    else:
        if kind not in BROWSER:
            reasons["transformers.js"] = f"its {kind} asks for other outputs"
        elif preprocessor is None:
            reasons["transformers.js"] = "nothing says how images are prepared"
        if not found.classifies:
            reasons["optimum"] = "it has no class for features of images"
    return found


def _fit(target: str, source: Checkpoint, reasons: dict[str, str], client: str) -> Fit | None:
    from vit_zoo.weights.write import fit

    try:
        return fit(target, source.config, source.tensors, (), with_config=True)
    except NotRepresentable as error:
        reasons[client] = error.message
        return None
