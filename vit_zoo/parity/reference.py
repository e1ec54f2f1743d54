"""References for a check: our model in float32 and float64, another library's module, or another exported file."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.trace import recorded, steps_of, values_of
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.loading.load import model_of
from vit_zoo.model import forward
from vit_zoo.model.outputs import EMBEDDING, OF_HEAD, output_names
from vit_zoo.model.positions import tables
from vit_zoo.model.torch_ops import EVAL, Float64Ops, TorchOps
from vit_zoo.parity.inputs import Frame
from vit_zoo.parity.tolerance import relative
from vit_zoo.weights.dialects.timm import ACTS
from vit_zoo.weights.resize import resize_positions

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.ops import Activation
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.model.vit import ViT

Results = tuple[dict[str, Any], dict[str, Any]]
HALVES = {torch.float16: "F16", torch.bfloat16: "BF16"}  # modules of any other type are treated as float32


@dataclass(frozen=True)
class Step:
    """An inner value of a reference.

    * `wanted`: the value in float64, stored as float32.
    * `floor`: the relative difference of the reference's own float32 value from it.
    """

    place: str  # path in the model
    wanted: Array
    floor: float
    block: int | None  # number of the encoder block, if it is in one
    role: str  # path within that block
    value: str | None = None  # its name in a graph written by us


class Reference(ABC):
    """Computes named outputs for images, in float64 where it can."""

    name: str
    frame: Frame
    config: ModelConfig | None = None
    stored: frozenset[str] = frozenset({"F32"})  # types of the stored weights
    norm_eps: frozenset[float] | None = None  # None if not known
    acts: frozenset[str] | None = None
    notes: tuple[str, ...] = ()
    like: ViT | None = None  # the same model as ours, if we can read it

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the outputs that another tool's file may have, without the batch axis, the likeliest first."""

    @abstractmethod
    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> Results:
        """Compute outputs in float64 (float32 if not `double`), and the floor of each image.

        A floor is the difference of float32 from float64, relative to the image's largest value; NaN if it is not measured.
        """

    def has(self, output: str) -> bool:
        """Whether the reference has an output of this name."""
        return output in self.shapes()

    def steps(self, images: Array, outputs: Sequence[str], options: GraphOptions | None) -> list[Step]:
        """Return the inner values in order; with `options`, the values of the graph that we would write."""
        return []


class ModelReference(Reference):
    """Our model. In float64, one layer's weights are converted at a time, which keeps memory close to the float32 model's."""

    def __init__(self, model: ViT, name: str) -> None:
        self.stored = frozenset(HALVES.get(p.dtype, "F32") for p in model.parameters())
        self.model = self.like = model.float().eval()
        self.name, self.spec, self.config = name, model.spec, model.config
        self.frame = Frame.of(self.spec, model.config.preprocess)
        self.norm_eps, self.acts = frozenset({self.spec.norm_eps}), frozenset({self.spec.act})
        self.dynamic: str | None = None  # how positions follow the image size, as in graph options
        self.activation: Activation = self.config.activation or "softmax"
        if model.config.random_seed is not None and model.config.random_part is None:
            self.notes = ("random initial weights: biases of 0 and norms of 1 hide some faults",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        spec = self.spec
        known = {
            "logits": (spec.num_classes,),
            "probabilities": (spec.num_classes,),
            EMBEDDING: (spec.num_classes,),
            "pooler_output": (spec.head_width,),
            "last_hidden_state": (spec.tokens, spec.dim),
        }
        return {name: shape for name, shape in known.items() if name in self.model.config.output_names()}

    def has(self, output: str) -> bool:
        return output in output_names(self.spec)  # of the config's names too: version 0.1 called embeddings logits

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> Results:
        size = (images.shape[2], images.shape[3])
        if images.shape[1] != self.spec.channels or (size != self.spec.image_size and self.dynamic is None):
            raise InputError(f"the model accepts {'x'.join(map(str, self.spec.image_size))} images only")
        with torch.inference_mode():
            if not double:
                with self._at(size, torch.float32) as spec:
                    single = _arrays(forward.vit(self.model, torch.from_numpy(images), spec, EVAL, outputs, self.activation))
                return single, _unmeasured(outputs, images)
            # a few logits can be close by chance; the features before them give a steadier floor
            behind = ["logits"] if "probabilities" in outputs else []
            behind += ["pooler_output"] if OF_HEAD & set(outputs) else []
            more = tuple(dict.fromkeys((*outputs, *behind)))
            with self._at(size, torch.float32) as spec:
                single = _arrays(forward.vit(self.model, torch.from_numpy(images), spec, EVAL, more, self.activation))
            with self._at(size, torch.float64) as spec:
                x = torch.from_numpy(images).double()
                wanted = _arrays(forward.vit(self.model, x, spec, Float64Ops(), more, self.activation))
        floors = {name: relative(single[name], wanted[name]) for name in more}
        for name in {"logits", EMBEDDING} & set(more):
            floors[name] = np.maximum(floors[name], floors["pooler_output"])
        if "probabilities" in outputs:  # an additive error of logits is a factor of probabilities
            factors = floors["logits"] * np.abs(wanted["logits"]).max(axis=-1)
            floors["probabilities"] = np.maximum(floors["probabilities"], factors)
        return {name: wanted[name] for name in outputs}, floors

    @contextmanager
    def _at(self, size: tuple[int, int], dtype: torch.dtype) -> Iterator[ViTSpec]:
        """Let the model accept images of another size: within the block its positions are interpolated, in float64."""
        if size == self.spec.image_size:
            yield self.spec
            return
        spec = self.spec.replace(image_size=size)
        replaced = {name: torch.from_numpy(table) for name, table in tables(spec).items()}
        if spec.pos == "learned":
            assert self.dynamic is not None
            table = self.model.pos_embed.detach().double()
            stored = Stored("F64", tuple(table.shape), table.numpy)
            prefix = table.shape[1] - self.spec.patch_tokens
            moved = resize_positions(stored, prefix, self.spec.grid, spec.grid, self.dynamic)
            replaced["pos_embed"] = nn.Parameter(torch.from_numpy(moved.array()).to(dtype), requires_grad=False)
        own = {name: getattr(self.model, name) for name in replaced}
        try:
            for name, value in replaced.items():
                setattr(self.model, name, value)
            yield spec
        finally:
            for name, value in own.items():
                setattr(self.model, name, value)

    def steps(self, images: Array, outputs: Sequence[str], options: GraphOptions | None) -> list[Step]:
        graph = replace(options or GraphOptions(), outputs=tuple(outputs), activation=self.activation)
        named = steps_of(self.spec, graph, pruned=options is not None)
        steps, blocks = [], {f"blocks.{i}": i for i in range(self.spec.depth)}
        runs = (self._values(images, outputs, ops, pruned=options is not None) for ops in (Float64Ops, DirectOps))
        values = zip(named, *runs, strict=True)
        for (place, name, heads), wanted, single in values:
            double, single_ = (_laid_out(x, heads) for x in (wanted, single))
            block, role = _located(place, blocks)
            floor, value = float(relative(single_, double).max()), None if options is None else name
            steps.append(Step(place, double.astype("<f4"), floor, block, role, value))
        return steps

    def _values(self, images: Array, outputs: Sequence[str], ops: type[TorchOps], *, pruned: bool) -> Iterator[Tensor]:
        op = recorded(ops, pruned=pruned)()
        op.steps = []
        x = torch.from_numpy(images)
        with torch.inference_mode():
            forward.vit(self.model, x.double() if ops is Float64Ops else x, self.spec, op, tuple(outputs), self.activation)
        return (value for _, _, _, result in op.steps for value in values_of(result))


def reference_name(source: Checkpoint) -> str:
    """Return the name of a reference in reports: never a folder name, which may be private."""
    if source.config.random_seed is not None and source.config.random_part is None:
        return f"{source.config.name}, random weights of seed {source.config.random_seed}"
    return source.path.name if source.path is not None else source.config.name


class Live:
    """The torch model of a checkpoint in float32, and the reference made of it. Both are made on first use."""

    def __init__(self, source: Checkpoint) -> None:
        self.source = source

    @property
    def model(self) -> ViT:
        return self.reference.model

    @cached_property
    def reference(self) -> ModelReference:
        return ModelReference(model_of(self.source), reference_name(self.source))


class DirectOps(TorchOps):
    """Float32 operations that compute with a module's weights directly, without calling it: for `steps`."""

    run = Float64Ops.run


class ModuleReference(Reference):
    """Another library's module, which runs its own code. `like` is the same model as ours, if we can read it."""

    def __init__(self, module: nn.Module, name: str, frame: Frame, like: ViT | None = None) -> None:
        self.module, self.name, self.frame = module, name, frame
        self.like, self.config = like, None if like is None else like.config
        self.stored = frozenset(HALVES.get(p.dtype, "F32") for p in module.parameters())
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

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> Results:
        single = self._run(self.module, images, next(self.module.parameters()).dtype)
        if not double:
            return {name: single[name] for name in outputs}, _unmeasured(outputs, images)
        wanted = self._run(self._in_double(), images, torch.float64)
        return {name: wanted[name] for name in outputs}, {name: relative(single[name], wanted[name]) for name in outputs}

    def steps(self, images: Array, outputs: Sequence[str], options: GraphOptions | None) -> list[Step]:
        dtype, blocks = next(self.module.parameters()).dtype, _blocks(self.module)
        single = self._trace(self.module, images, dtype, lambda place, value: value.astype("<f4"))

        def step(place: str, value: Array) -> Step | None:
            if place not in single:
                return None
            floor = float(relative(single.pop(place), value).max())
            return Step(place, value.astype("<f4"), floor, *_located(place, blocks))

        return list(filter(None, self._trace(self._in_double(), images, torch.float64, step).values()))

    def _in_double(self) -> nn.Module:
        if self._double is None:
            self._double = copy.deepcopy(self.module).double()
        return self._double

    def _trace(self, module: nn.Module, images: Array, dtype: torch.dtype, make: Callable[[str, Array], Any]) -> dict[str, Any]:
        """Return `make` of the input and output of each module, in the order of the forward, without repeated values."""
        values: dict[str, Any] = {}
        last = np.zeros(0)

        def watch(path: str) -> list[Any]:
            def before(m: nn.Module, args: tuple[Any, ...]) -> None:
                record(f"{path} (input)", args[0] if args else None)

            def after(m: nn.Module, args: tuple[Any, ...], result: Any) -> None:
                record(path, result[0] if isinstance(result, tuple) and result else result)

            part = module.get_submodule(path)
            return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]

        def record(place: str, value: Any) -> None:
            nonlocal last
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2 or place in values:
                return
            array = value.to(torch.float64, copy=True).numpy()  # the module may change it in place later
            if not np.array_equal(array, last):
                values[place], last = make(place, array), array

        hooks = [hook for path, _ in module.named_modules() if path for hook in watch(path)]
        try:
            self._run(module, images, dtype)
        finally:
            for hook in hooks:
                hook.remove()
        return values

    def _run(self, module: nn.Module, images: Array, dtype: torch.dtype) -> dict[str, Array]:
        with _evaluating(module), torch.inference_mode():
            try:
                return _arrays(_named(module(torch.from_numpy(images).to(dtype))))
            except (RuntimeError, ValueError, AssertionError) as error:  # what modules raise for a wrong size
                reason = str(error).strip().splitlines()[0][:200]
                raise InputError(f"{self.name} does not accept images of shape {list(images.shape)}: {reason}") from None


class ArtifactReference(Reference):
    """Another exported file. It runs in float32 only, so its own rounding error is not known."""

    def __init__(self, artifact: Artifact, frame: Frame) -> None:
        self.artifact, self.name, self.frame, self.config = artifact, artifact.path.name, frame, artifact.about.config
        self.notes = ("float64 results of another exported file: the tolerance is its upper limit",)
        axes = getattr(artifact, "axes", ("batch",))
        self._batch = axes[0] if isinstance(axes[0], int) else None  # the only batch size that it accepts
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        if self._shapes is None:
            outputs = self._run(np.zeros((1, self.frame.channels, *self.frame.size), "<f4"))
            self._shapes = {name: value.shape[1:] for name, value in outputs.items()}
        return self._shapes

    def results(self, images: Array, outputs: Sequence[str], *, double: bool) -> Results:
        single = self._run(images)
        return {name: single[name] for name in outputs}, _unmeasured(outputs, images)

    def _run(self, images: Array) -> dict[str, Array]:
        """Run in batches of the accepted size; the last one is filled with repeated images."""
        size = self._batch or len(images)
        parts = []
        try:
            for start in range(0, len(images), size):
                rows = images[start : start + size]
                given = self.artifact.run(np.resize(rows, (size, *rows.shape[1:])))
                parts.append({name: value[: len(rows)] for name, value in given.items()})
        except RefusedContent as error:
            raise InputError(f"{self.name}: {error.message}") from None
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _unmeasured(outputs: Sequence[str], images: Array) -> dict[str, Array]:
    return {name: np.full(len(images), np.nan) for name in outputs}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: value.double().numpy() if value.dtype == torch.bfloat16 else value.numpy() for name, value in tensors.items()}


def _blocks(module: nn.Module) -> dict[str, int]:
    """Return the number of each encoder block by its path: of all lists of equal modules, the one with the most parameters."""
    lists = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    alike = [(path, m) for path, m in lists if len({type(part) for part in m}) == 1]
    path, stack = max(alike, key=lambda item: (len(item[1]) > 1, sum(p.numel() for p in item[1].parameters())), default=("", []))
    names = (name for name, _ in stack.named_children()) if isinstance(stack, nn.Module) else ()
    return {f"{path}.{name}".lstrip("."): i for i, name in enumerate(names)}


def _located(place: str, blocks: Mapping[str, int]) -> tuple[int | None, str]:
    """Return the number of the block that a path is in, and the path within the block."""
    for path, number in blocks.items():
        if place == path or place.startswith((f"{path}.", f"{path}/", f"{path} ")):
            return number, place[len(path) :]
    return None, place


def _laid_out(x: Tensor, heads: bool) -> Array:
    """Return the values with heads merged, as in a graph written by us."""
    return (rearrange(x, "b n t e -> b t (n e)") if heads else x).numpy().astype("<f8")


def _named(result: Any) -> dict[str, Tensor]:
    """Return the tensors in a module's result, by name or by position."""
    if isinstance(result, Tensor):
        return {"output": result}
    items = result.items() if isinstance(result, Mapping) else ((f"output.{i}", value) for i, value in enumerate(result))
    return {name: value for name, value in items if isinstance(value, Tensor)}


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode within the block, and restore the mode of each part afterwards."""
    was = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in was.items():
            part.training = training
