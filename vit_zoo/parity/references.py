"""What is compared with: our model in float32 and float64, another library's live module, or another artifact."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vit_zoo import forward
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.graph.steps import recorded, steps_of, values_of
from vit_zoo.parity.images import Frame
from vit_zoo.parity.judging import relative
from vit_zoo.torch_ops import EVAL, Float64Ops, TorchOps

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model import ViT
    from vit_zoo.model_config import ModelConfig

Results = dict[str, Any]
ACTS = {  # how other libraries' modules are called, and the form of their `approximate` argument
    ("GELU", "none"): "gelu", ("GELU", "tanh"): "gelu_tanh", ("GELUTanh", ""): "gelu_tanh", ("PytorchGELUTanh", ""): "gelu_tanh",
    ("GELUActivation", ""): "gelu", ("QuickGELU", ""): "quick_gelu", ("QuickGELUActivation", ""): "quick_gelu",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A value inside the reference: its place, what it is for the images of the trace, and how far float32 is from it."""

    place: str
    wanted: Array
    floor: float
    value: str | None = None  # its name in a graph of ours

    @property
    def block(self) -> int | None:
        """The number of the encoder block that the place is in."""
        parts = self.place.replace("/", ".").split(".")
        numbers = [int(part) for part in parts if part.isdecimal()]
        return numbers[0] if numbers and parts[0] != "patch_embed" else None


class Reference(ABC):
    """Named outputs for images, in as much precision as there is."""

    name: str
    frame: Frame
    config: ModelConfig | None = None
    stored: frozenset[str] = frozenset({"F32"})  # the types that the weights are stored in
    norm_eps: frozenset[float] | None = None  # None: not known
    acts: frozenset[str] | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The outputs of one image, without the batch: those that a file of another tool may give, the likeliest first."""

    @abstractmethod
    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> tuple[Results, dict[str, float | None]]:
        """The outputs in float64 (float32 if not `double`), and each one's floor: how far float32 is from that, relative."""

    def has(self, output: str) -> bool:
        return output in self.shapes()

    def steps(self, images: Array, outputs: Sequence[str], opset: int | None) -> list[Step]:
        """Its inner values in order; with an `opset`, those of the graph that we would write at it."""
        return []


class ModelReference(Reference):
    """Our model. Float64 takes one layer's weights at a time, so that memory stays near that of the float32 model."""

    def __init__(self, model: ViT, name: str) -> None:
        self.stored = frozenset({{torch.float16: "F16", torch.bfloat16: "BF16"}.get(p.dtype, "F32") for p in model.parameters()})
        self.model, self.name, self.spec, self.config = model.float().eval(), name, model.spec, model.config
        self.frame = Frame.of(self.spec, model.config.preprocess)
        self.norm_eps, self.acts = frozenset({self.spec.norm_eps}), frozenset({self.spec.act})
        if model.config.random_seed is not None:
            self.notes = ("random initial weights: biases of 0 and norms of 1 hide some faults",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        spec = self.spec
        known = {
            "logits": (spec.num_classes,),
            "pooler_output": (spec.dim,),
            "last_hidden_state": (spec.tokens, spec.dim),
        }
        return {name: shape for name, shape in known.items() if name in forward.output_names(spec)}

    def has(self, output: str) -> bool:
        return output in forward.output_names(self.spec)

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> tuple[Results, dict[str, float | None]]:
        if images.shape[1:] != (self.spec.channels, *self.spec.image_size):
            raise InputError(f"the model takes {'x'.join(map(str, self.spec.image_size))} only")
        with torch.inference_mode():
            single = _arrays(forward.vit(self.model, torch.from_numpy(images), self.spec, EVAL, outputs))
            if not double:
                return single, dict.fromkeys(outputs)
            wanted = _arrays(forward.vit(self.model, torch.from_numpy(images).double(), self.spec, Float64Ops(), outputs))
        return wanted, {name: relative(single[name], wanted[name]) for name in outputs}

    def steps(self, images: Array, outputs: Sequence[str], opset: int | None) -> list[Step]:
        named = steps_of(self.spec, opset or 20, outputs, pruned=opset is not None)
        found = []
        values = zip(named, *(self._values(images, outputs, ops, opset) for ops in (Float64Ops, DirectOps)), strict=True)
        for (place, name, heads), wanted, single in values:
            double, single_ = (_laid_out(x, heads) for x in (wanted, single))
            found.append(Step(place, double.astype("<f4"), relative(single_, double), None if opset is None else name))
        return found

    def _values(self, images: Array, outputs: Sequence[str], ops: type[TorchOps], opset: int | None) -> Iterator[Tensor]:
        op = recorded(ops, pruned=opset is not None)()
        op.steps = []
        x = torch.from_numpy(images)
        with torch.inference_mode():
            forward.vit(self.model, x.double() if ops is Float64Ops else x, self.spec, op, tuple(outputs))
        return (value for _, _, _, result in op.steps for value in values_of(result))


class DirectOps(TorchOps):
    """Single precision, past the modules: for `steps`."""

    run = Float64Ops.run


class ModuleReference(Reference):
    """Another library's module, computed by its own code; `like` is our reading of it, if there is one."""

    def __init__(self, module: nn.Module, name: str, frame: Frame, like: ViT | None = None) -> None:
        self.module, self.name, self.frame = module, name, frame
        self.config = None if like is None else like.config
        dtypes = {p.dtype for p in module.parameters()}
        self.stored = frozenset({{torch.float16: "F16", torch.bfloat16: "BF16"}.get(dtype, "F32") for dtype in dtypes})
        parts = list(module.modules())
        eps = [getattr(m, "eps", getattr(m, "variance_epsilon", None)) for m in parts if type(m).__name__.endswith("LayerNorm")]
        self.norm_eps = frozenset(e for e in eps if e is not None) if eps and None not in eps else None
        acts = {ACTS.get((type(m).__name__, getattr(m, "approximate", ""))) for m in parts} - {None}
        self.acts = frozenset(str(act) for act in acts) or None
        self._double: nn.Module | None = None
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        if self._shapes is None:
            x = np.zeros((1, self.frame.channels, *self.frame.size), "<f4")
            self._shapes = {name: value.shape[1:] for name, value in self._run(self.module, x, torch.float32).items()}
        return self._shapes

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> tuple[Results, dict[str, float | None]]:
        single = self._run(self.module, images, next(self.module.parameters()).dtype)
        if not double:
            return {name: single[name] for name in outputs}, dict.fromkeys(outputs)
        wanted = self._run(self._in_double(), images, torch.float64)
        return {name: wanted[name] for name in outputs}, {name: relative(single[name], wanted[name]) for name in outputs}

    def steps(self, images: Array, outputs: Sequence[str], opset: int | None) -> list[Step]:
        wanted, single = self._trace(self._in_double(), images, torch.float64), self._trace(self.module, images, torch.float32)
        return [
            Step(place, value.astype("<f4"), relative(single[place], value)) for place, value in wanted.items() if place in single
        ]

    def _in_double(self) -> nn.Module:
        if self._double is None:
            self._double = copy.deepcopy(self.module).double()
        return self._double

    def _trace(self, module: nn.Module, images: Array, dtype: torch.dtype) -> dict[str, Array]:
        """What goes into each module and comes out, in the order of the forward."""
        found: dict[str, Array] = {}

        def watch(path: str) -> list[Any]:
            def before(m: nn.Module, args: tuple[Any, ...]) -> None:
                keep(f"{path} (input)", args[0] if args else None)

            def after(m: nn.Module, args: tuple[Any, ...], result: Any) -> None:
                keep(path, result[0] if isinstance(result, tuple) and result else result)

            part = module.get_submodule(path)
            return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]

        def keep(place: str, value: Any) -> None:
            if isinstance(value, Tensor) and value.ndim >= 2 and place not in found:
                found[place] = value.detach().double().numpy()

        hooks = [hook for path, _ in module.named_modules() if path for hook in watch(path)]
        try:
            self._run(module, images, dtype)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _run(self, module: nn.Module, images: Array, dtype: torch.dtype) -> dict[str, Array]:
        with _evaluating(module), torch.inference_mode():
            try:
                return _arrays(_named(module(torch.from_numpy(images).to(dtype))))
            except (RuntimeError, ValueError, AssertionError) as error:  # how modules refuse a size
                reason = str(error).strip().splitlines()[0][:200]
                raise InputError(f"{self.name} refuses images of shape {list(images.shape)}: {reason}") from None


class ArtifactReference(Reference):
    """Another artifact, as it runs in float32; how far that is from exact is not known."""

    def __init__(self, artifact: Artifact, frame: Frame) -> None:
        self.artifact, self.name, self.frame, self.config = artifact, artifact.path.name, frame, artifact.about.config
        self.notes = ("another artifact has no float64: the tolerance is the cap alone",)
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        if self._shapes is None:
            axes = getattr(self.artifact, "axes", ("batch",))
            x = np.zeros((axes[0] if isinstance(axes[0], int) else 1, self.frame.channels, *self.frame.size), "<f4")
            self._shapes = {name: value.shape[1:] for name, value in self.artifact.run(x).items()}
        return self._shapes

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> tuple[Results, dict[str, float | None]]:
        try:
            found = self.artifact.run(images)
        except RefusedContent as error:
            raise InputError(f"{self.name}: {error.message}") from None
        return {name: found[name] for name in outputs}, dict.fromkeys(outputs)


def _arrays(found: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: value.double().numpy() if value.dtype == torch.bfloat16 else value.numpy() for name, value in found.items()}


def _laid_out(x: Tensor, heads: bool) -> Array:
    """Heads side by side, as they lie in a graph of ours."""
    return (rearrange(x, "b n t e -> b t (n e)") if heads else x).numpy().astype("<f8")


def _named(result: Any) -> dict[str, Tensor]:
    """The tensors that a module gives, by name or by position."""
    if isinstance(result, Tensor):
        return {"output": result}
    items = result.items() if isinstance(result, Mapping) else ((f"output.{i}", value) for i, value in enumerate(result))
    return {name: value for name, value in items if isinstance(value, Tensor)}


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, and afterwards each part as it was."""
    was = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in was.items():
            part.training = training
