"""Traces of the forward: its operations in order, with their results, in either back end, so that runs can be compared."""

from __future__ import annotations

from typing import Any

from vit_zoo.files import Stored
from vit_zoo.graph.build import input_of, operations
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.values import Heads, Scope
from vit_zoo.model import forward
from vit_zoo.model.ops import Ops
from vit_zoo.model.spec import ViTSpec

NO_STEPS = ("run", "weight", "table", "dropout", "drop_path", "prunes")  # operations that compute nothing in inference


def recorded(ops: type[Any], *, pruned: bool) -> type[Any]:
    """Derive a class of operations that appends (name, first argument, place in a graph, result) to `steps`.

    An operation that calls others is one step. `pruned`: whether the last block skips queries that no output needs.
    """

    def recording(name: str) -> Any:
        def method(self: Any, *args: Any) -> Any:
            self.depth += 1
            try:
                result = getattr(ops, name)(self, *args)
            finally:
                self.depth -= 1
            if self.depth == 0:
                self.steps.append((name, args[0], getattr(self, "place", "vit"), result))
            return result

        return method

    def prunes(self: Any, m: Any) -> bool:
        return pruned

    names = [name for name in vars(Ops) if not name.startswith("_") and name not in NO_STEPS]
    return type(f"Recorded{ops.__name__}", (ops,), {"depth": 0, "prunes": prunes, **{n: recording(n) for n in names}})


def values_of(result: Any) -> list[Any]:
    """Return the tensors of a step's result: one for most operations."""
    return [part for item in result for part in values_of(item)] if isinstance(result, tuple | list) else [result]


def steps_of(spec: ViTSpec, options: GraphOptions, *, pruned: bool = True) -> list[tuple[str, str, bool]]:
    """List the values of the forward: place in the model, name in the graph of `build`, and whether it holds heads.

    A value that holds heads is b t (n e) in the graph.
    """
    tensors = {name: Stored("F32", shape, _no_array) for name, shape in spec.shapes().items()}
    image = input_of(spec, options)
    op: Any = operations(spec, tensors, options, None, image, lambda ops: recorded(ops, pruned=pruned))
    op.steps = []
    values = forward.vit(Scope(), image, spec, op, options.outputs, options.activation)
    renamed: dict[str, str] = {}
    for name, value in values.items():
        renamed.setdefault(op.unflatten(value).name, name)
    steps = []
    counts: dict[str, int] = {}
    for name, first, where, result in op.steps:
        place = first.path if isinstance(first, Scope) else f"{where}/{name}"
        counts[place] = counts.get(place, 0) + 1
        place = place if counts[place] == 1 else f"{place} {counts[place]}"
        parts = values_of(result)
        names = "qkv"[-len(parts) :] if name in ("qkv", "kv") else range(1, 1 + len(parts))
        for part, value in zip(names, parts, strict=True):
            x = value.x if isinstance(value, Heads) else value
            label = place if len(parts) == 1 else f"{place} {part}"
            steps.append((label, renamed.get(x.name, x.name), isinstance(value, Heads)))
    return steps


def _no_array() -> Any:
    raise AssertionError
