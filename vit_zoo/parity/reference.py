"""References for a check: our model in float32 and float64, another library's module, or another exported file."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
from vit_zoo.model import forward
from vit_zoo.model.outputs import EMBEDDING, OF_HEAD, output_names
from vit_zoo.model.positions import tables
from vit_zoo.model.torch_ops import EVAL, Float64Ops, TorchOps
from vit_zoo.parity.expected import KEPT, Expected
from vit_zoo.parity.inputs import Frame
from vit_zoo.parity.tolerance import relative
from vit_zoo.weights.resize import resize_positions

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.ops import Activation
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.expected import Float64

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
    """Computes named outputs for images in float32, and where it can in float64."""

    name: str
    frame: Frame
    config: ModelConfig | None = None
    stored: frozenset[str] = frozenset({"F32"})  # types of the stored weights
    norm_eps: frozenset[float] | None = None  # None if not known
    acts: frozenset[str] | None = None
    notes: tuple[str, ...] = ()
    like: ViT | None = None  # the same model as ours, if we can read it
    has_float64 = True

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the outputs that another tool's file may have, without the batch axis, the likeliest first."""

    @abstractmethod
    def single(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs of images (b c H W) in float32."""

    def double(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        """Compute outputs of images (b c H W) in float64. Only if `has_float64`."""
        raise NotImplementedError

    def for_floors(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs, and those that their floors depend on."""
        return tuple(outputs)

    def floors(self, single: Mapping[str, Array], double: Mapping[str, Array]) -> dict[str, Array]:
        """Return the floor of each image (b), from the results of `for_floors`.

        A floor is the difference of float32 from float64, relative to the image's largest value.
        """
        return {name: relative(single[name], double[name]) for name in double}

    def expected(self, images: Array, outputs: Sequence[str], use: Float64) -> Expected:
        """Return what a file should return for images (b c H W). It is kept for the next file, if it is small."""
        outputs = tuple(dict.fromkeys(outputs))
        known = (outputs, use, self._state(), hashlib.blake2b(images.tobytes()).digest(), images.shape)
        if known not in self._expected:
            made = Expected(self, images, outputs, use)
            if made.nbytes + sum(kept.nbytes for kept in self._expected.values()) > KEPT:
                return made
            self._expected[known] = made
        return self._expected[known]

    @cached_property
    def _expected(self) -> dict[Any, Expected]:
        return {}

    def _state(self) -> tuple[Any, ...]:
        """Return what may change between two files and affects the results."""
        return ()

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
        if any(p.dtype != torch.float32 for p in model.parameters()):  # the cast reads every weight
            model.float()
        self.model = self.like = model.eval()
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
            EMBEDDING: (spec.projection or spec.num_classes,),
            "pooler_output": (spec.feature_width,),
            "last_hidden_state": (spec.tokens, spec.dim),
        }
        return {name: shape for name, shape in known.items() if name in self.model.config.output_names()}

    def has(self, output: str) -> bool:
        return output in output_names(self.spec)  # of the config's names too: version 0.1 called embeddings logits

    def single(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        with torch.inference_mode(), self._at(images, torch.float32) as spec:
            return arrays(forward.vit(self.model, torch.from_numpy(images), spec, EVAL, tuple(outputs), self.activation))

    def double(self, images: Array, outputs: Sequence[str], op: Float64Ops | None = None) -> dict[str, Array]:
        """Compute outputs in float64, or as another kind of `Float64Ops` does; also those of `for_floors`."""
        outputs = self.for_floors(outputs)
        with torch.inference_mode(), self._at(images, torch.float64) as spec:
            x = torch.from_numpy(images).double()
            return arrays(forward.vit(self.model, x, spec, op or Float64Ops(), outputs, self.activation))

    def for_floors(self, outputs: Sequence[str]) -> tuple[str, ...]:
        # a few logits can be close by chance; the features before them give a steadier floor
        behind = ["logits"] if "probabilities" in outputs else []
        behind += ["pooler_output"] if OF_HEAD & set(outputs) else []
        return tuple(dict.fromkeys((*outputs, *behind)))

    def floors(self, single: Mapping[str, Array], double: Mapping[str, Array]) -> dict[str, Array]:
        floors = super().floors(single, double)
        for name in {"logits", EMBEDDING} & set(floors):
            floors[name] = np.maximum(floors[name], floors["pooler_output"])
        if "probabilities" in floors:  # an additive error of logits is a factor of probabilities
            factors = floors["logits"] * np.abs(double["logits"]).max(axis=-1)
            floors["probabilities"] = np.maximum(floors["probabilities"], factors)
        return floors

    def _state(self) -> tuple[Any, ...]:
        return self.dynamic, self.activation

    @contextmanager
    def _at(self, images: Array, dtype: torch.dtype) -> Iterator[ViTSpec]:
        """Let the model accept the images: within the block its positions are interpolated to their size, in float64.

        Raises InputError for another number of channels, and for another size where positions do not follow it.
        """
        size = (images.shape[2], images.shape[3])
        if images.shape[1] != self.spec.channels or (size != self.spec.image_size and self.dynamic is None):
            raise InputError(f"the model accepts {'x'.join(map(str, self.spec.image_size))} images only")
        if size == self.spec.image_size:
            yield self.spec
            return
        spec = self.spec.replace(image_size=size)
        replaced = {name: torch.from_numpy(table) for name, table in tables(spec).items()}
        if spec.learned_pos:
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
            block, role = located(place, blocks)
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


class DirectOps(TorchOps):
    """Float32 operations that compute with a module's weights directly, without calling it: for `steps`."""

    run = Float64Ops.run


class ArtifactReference(Reference):
    """Another exported file. It runs in float32 only, so its own rounding error is not known."""

    has_float64 = False

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

    def single(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        results = self._run(images)
        return {name: results[name] for name in outputs}

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


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: value.double().numpy() if value.dtype == torch.bfloat16 else value.numpy() for name, value in tensors.items()}


def located(place: str, blocks: Mapping[str, int]) -> tuple[int | None, str]:
    """Return the number of the block that a path is in, and the path within the block."""
    for path, number in blocks.items():
        if place == path or place.startswith((f"{path}.", f"{path}/", f"{path} ")):
            return number, place[len(path) :]
    return None, place


def _laid_out(x: Tensor, heads: bool) -> Array:
    """Return the values with heads merged, as in a graph written by us."""
    return (rearrange(x, "b n t e -> b t (n e)") if heads else x).numpy().astype("<f8")
