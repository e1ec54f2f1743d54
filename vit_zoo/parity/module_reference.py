"""Reference of a check: another library's module, which runs its own code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vit_zoo.errors import InputError
from vit_zoo.parity.inputs import Frame
from vit_zoo.parity.reference import HALVES, Reference, Step, arrays, located
from vit_zoo.parity.tolerance import relative
from vit_zoo.weights.dialects.timm import ACTS

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.graph.options import GraphOptions
    from vit_zoo.model.vit import ViT


class ModuleReference(Reference):
    """Another library's module. `like` is the same model as ours, if we can read it."""

    def __init__(self, module: nn.Module, name: str, frame: Frame, like: ViT | None = None) -> None:
        self.module, self.name, self.frame = module, name, frame
        self.like, self.config = like, None if like is None else like.config
        self.stored = frozenset(HALVES.get(p.dtype, "F32") for p in module.parameters())
        parts = list(module.modules())
        norms = [m for m in parts if type(m).__name__.lower().endswith(("layernorm", "rmsnorm"))]
        eps = [getattr(m, "eps", getattr(m, "variance_epsilon", None)) for m in norms]
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

    def single(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        results = self._run(self.module, images, next(self.module.parameters()).dtype)
        return {name: results[name] for name in outputs}

    def double(self, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        results = self._run(self._in_double(), images, torch.float64)
        return {name: results[name] for name in outputs}

    def steps(self, images: Array, outputs: Sequence[str], options: GraphOptions | None) -> list[Step]:
        dtype, blocks = next(self.module.parameters()).dtype, _blocks(self.module)
        single = self._trace(self.module, images, dtype, lambda place, value: value.astype("<f4"))

        def step(place: str, value: Array) -> Step | None:
            if place not in single:
                return None
            floor = float(relative(single.pop(place), value).max())
            return Step(place, value.astype("<f4"), floor, *located(place, blocks))

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
                return arrays(named_outputs(module(torch.from_numpy(images).to(dtype))))
            except (RuntimeError, ValueError, AssertionError) as error:  # what modules raise for a wrong size
                reason = str(error).strip().splitlines()[0][:200]
                raise InputError(f"{self.name} does not accept images of shape {list(images.shape)}: {reason}") from None


def _blocks(module: nn.Module) -> dict[str, int]:
    """Return the number of each encoder block by its path: of all lists of equal modules, the one with the most parameters."""
    lists = [(path, m) for path, m in module.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    alike = [(path, m) for path, m in lists if len({type(part) for part in m}) == 1]
    path, stack = max(alike, key=lambda item: (len(item[1]) > 1, sum(p.numel() for p in item[1].parameters())), default=("", []))
    names = (name for name, _ in stack.named_children()) if isinstance(stack, nn.Module) else ()
    return {f"{path}.{name}".lstrip("."): i for i, name in enumerate(names)}


def named_outputs(result: Any) -> dict[str, Tensor]:
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
