"""Relative biases as constants, for graphs without Gather: one for each pair of tokens in place of one for each distance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.files import Stored
from vit_zoo.model.positions import relative_rows
from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

TABLE = "relative_position_bias_table"


def looked_up(tensors: Mapping[str, Stored], spec: ViTSpec) -> dict[str, Stored]:
    """Replace tables of relative biases, rows n, by the biases of all pairs of tokens, 1 n t t."""
    shape = (1, spec.heads, spec.tokens, spec.tokens)
    return {
        **{name: t for name, t in tensors.items() if not name.endswith(TABLE)},
        **{
            pairs_of(name): Stored(t.dtype, shape, partial(_pairs, t, spec.grid))
            for name, t in tensors.items()
            if name.endswith(TABLE)
        },
    }


def pairs_of(name: str) -> str:
    """Return the name of the biases of all pairs that are in a graph in place of a table."""
    return name.removesuffix("_table")


def _pairs(table: Stored, grid: tuple[int, int]) -> Array:
    import numpy as np

    return np.ascontiguousarray(table.array()[relative_rows(grid)].transpose(2, 0, 1)[None])
