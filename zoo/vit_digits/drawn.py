"""Drawn digits for the training of `vit_digits`: strokes with random variations, as 8x8 counts of ink like the data set's.

`cells` computes what docs/assets/live/strokes.mjs computes for a drawing on the live page; a test compares both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CELLS, BITMAP, LEVELS = 8, 32, 16  # the data set counts the ink in 4x4 blocks of a bitmap
STRETCH = 1.25  # limit of width against height and the reverse, so that a 1 does not become a bar
CURVE = 5  # points on the curve for each control point
FRAME = (10.0, 14.0)  # width and height of the control points below

# Ways to write each digit. A stroke is a list of control points "x,y" of a smooth curve, which has a corner where a point is
# repeated; "/" separates strokes. The digits of tests/data/drawn_digits.json are not among them.
WAYS = {
    0: (
        "5,0 1,3 0,7 1,11 5,14 9,11 10,7 9,3 5,0",
        "6,0 2,2 0,8 3,14 8,12 10,6 8,1 4,1",
        "5,0 3,4 2.5,9 5,14 7.5,9 7,3 5,0",
        "3,1 7,0 10,5 9,11 5,14 1,11 0,5 3,1",
        "8,1 4,0 0,5 1,12 5,14 9,11 10,5 7,0 3,2",
    ),
    1: (
        "5,0 5,14",
        "2,4 5,0 5,0 5,14",
        "1,3 4.5,1 6,0 6,0 6,5 6,14",
        "3,3 5,0 5,0 5,14/2,14 8,14",
        "6,0 4,14",
        "5,0 5,14/2,14 8,14",
        "3,2.5 6,0 6,0 5,7 4,14",
    ),
    2: (
        "0,4 2,0.5 6,0 9,2 9,5 6,9 0,14 0,14 10,14",
        "1,4 3,0 8,0 9,4 6,9 2,13 0,12 1,11 4,12 7,14 10,12",
        "1,2 5,0 9,2 8,6 4,10 0,14 0,14 5,13.5 10,14",
        "1,1.5 8,0.5 8,0.5 0,14 0,14 9,14",
        "0,5 1,1 5,0 9,3 8,7 4,11 1,13 1,14 5,13 9,14 10,12",
    ),
    3: (
        "1,2 4,0 8,1 9,4 5,6.5 5,6.5 9,8 10,11 7,14 3,14 0,12",
        "1,0 9,0 9,0 4,5.5 4,5.5 9,7.5 9.5,11 6,14 1,13",
        "0,1 5,0 9,3 6,6 3,6.5 3,6.5 8,7.5 10,10.5 6,14 1,13",
        "2,1 7,0 8,4 4,7 8,9 9,12 5,14 1,12",
        "1,2 5,0 9,2 8,5 4,7 3,6 5,6 9,9 9,12 5,14 0,12",
    ),
    4: (
        "2,0 1,5 0,9 0,9 10,9/7,4 7,14",
        "3,0 0,8 0,8 9,8/7,0 7,14",
        "1,0 1,6 3,8 9,7/9,0 8,7 8,14",
        "7,0 0,9.5 0,9.5 10,9.5/7,0 7,14",
        "6,0 0,9 0,9 10,9/7,5 6,14",
        "8,14 8,0 8,0 0,9 0,9 10,9",
    ),
    5: (
        "8,0 2,0 2,0 1,6 1,6 5,5 9,7 9.5,11 6,14 1,13",
        "2,0 1.5,6 1.5,6 6,5 9,8 8,12 4,14 0,12.5/2,0 9,0",
        "9,0 4,0.5 1,3 3,6 7,7.5 9,10 7,13 1,14",
        "10,0 3,0 3,0 2,6 6,5.5 9,8 8,12 4,14 0,13",
    ),
    6: (
        "7,0 3,3 0.5,8 1,12 5,14 9,12 9,9 6,7 2,8.5 1,11",
        "3,0 1,6 1,11 4,14 8,13 9,10 6,8 2,9.5",
        "9,1 5,0 1,4 0,9 2,13 6,14 10,11 8,8 4,7.5 1,10",
        "6,0 1,9 2,13 6,14 9,11 7,8 3,9 1.5,11",
    ),
    7: (
        "0,0 9,0 9,0 4,14",
        "0,1 5,0.5 10,0 10,0 6,6 4,14",
        "0,0 9,0 9,0 4,14/2,7 9,6.5",
        "0,3 0,0 0,0 9,0 9,0 5,7 4,14",
        "1,1 4,2 9,0 7,6 5,14",
        "0,2.5 0.5,0 0.5,0 9,0.5 9,0.5 6,7 5,14/3,7.5 9,7",
        "0,0 8,0 8,0 7,7 6.5,14",
    ),
    8: (
        "8,2 5,0 1,2 2,5 5,7 8,9 9,12 5,14 1,12 2,9 5,7 8,5 8,2",
        "5,6.5 2,5 1.5,2.5 5,0 8,2.5 8,5 5,6.5/5,6.5 1,8.5 0.5,11.5 5,14 9.5,11.5 9,8.5 5,6.5",
        "5,0 9,2 7,5.5 2,8.5 0.5,12 5,14 9,12 8,8.5 3,5.5 1,2 5,0",
        "9,1 5,0 2,2.5 5,6 8,10 7,13 3,13.5 2,10.5 5,7 9,2",
    ),
    9: (
        "9,3 6,0 2,1 0,4 2,7 6,7 9,4 9,2 9,2 9,8 8,14",
        "8,3 5,0 1,2 1,5 4,7 7,5.5 8,3/8,1 8,14",
        "9,4 6,0 1,2 1,6 5,7 9,4 9,4 9,9 6,13 1,14",
        "8,2 4,0 0,3 2,6.5 6,6 9,2 8,7 5,14",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pen:
    """What `cells` makes of a drawing, in pixels of the bitmap: the box of the pen's path, and the ink."""

    width: float = 17.0
    height: float = 27.0
    ink: int = 311  # the mean of the data set; it hardly depends on the digit


PEN = Pen()


def cells(strokes: Sequence[Array], pen: Pen = PEN) -> Array:
    """Return the counts of ink, 0..16, in 8x8 cells. A stroke is an array of points (n 2), x and y in any unit, y downwards."""
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    full = np.array([pen.width, pen.height]) / np.maximum(high - low, 1)
    across = min(full[0], STRETCH * full[1])
    down = min(full[1], STRETCH * across)
    fitted = [BITMAP / 2 + (stroke - (low + high) / 2) * (across, down) for stroke in strokes]
    ends = np.concatenate(fitted)
    starts = np.concatenate([np.concatenate([stroke[:1], stroke[:-1]]) for stroke in fitted])
    y, x = np.mgrid[:BITMAP, :BITMAP].reshape(2, -1, 1) + 0.5
    (ax, ay), (dx, dy) = starts.T, (ends - starts).T
    length = dx * dx + dy * dy
    along = (x - ax) * dx + (y - ay) * dy
    share = np.clip(np.divide(along, length, out=np.zeros_like(along), where=length > 0), 0, 1)
    distances = ((x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2).min(1)
    inked = distances <= np.partition(distances, pen.ink - 1)[pen.ink - 1]
    block = BITMAP // CELLS
    return inked.reshape(CELLS, block, CELLS, block).sum((1, 3))


def curve(points: Array) -> Array:
    """Return points on the Catmull-Rom spline through control points (n 2)."""
    before, after = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p = np.concatenate([before[None], points, after[None]])
    t = (np.arange(CURVE) / CURVE)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        parts.append(b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([*parts, points[-1:]])


def drawing(digit: int, random: np.random.Generator) -> list[Array]:
    """Return the strokes of one digit, one of its WAYS with random changes of each point, the whole shape and its slant."""
    ways = WAYS[digit]
    strokes = []
    for text in ways[random.integers(len(ways))].split("/"):
        corners: dict[str, Array] = {}  # a repeated point stays a corner
        for word in text.split():
            corners.setdefault(word, np.array(word.split(","), dtype=float) + random.normal(0, 0.5, 2))
        strokes.append(np.stack([corners[word] for word in text.split()]))
    amplitude, phase = random.uniform(-0.6, 0.6, (2, 2)), random.uniform(0, 2 * math.pi, (2, 2))
    slant, angle, widening = random.normal(0, 0.2), random.normal(0, 0.1), math.exp(random.normal(0, 0.15))
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]]) @ np.array([[widening, 0], [-slant, 1]])
    bent = []
    for stroke in strokes:
        line = curve(stroke)
        waves = [(amplitude[i] * np.sin(math.pi * line / FRAME[1] + phase[i])).sum(1) for i in range(2)]
        bent.append((line + np.stack(waves, 1)) @ linear * 10)
    return bent


def samples(count: int, seed: int) -> tuple[Array, Array]:
    """Return drawn digits as counts 0..16 (count 8 8) and their labels; the classes are equally frequent."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = []
    for digit in labels:
        pen = Pen(width=random.uniform(14, 20), height=random.uniform(25.5, 27.5), ink=int(random.normal(311, 34)))
        images.append(cells(drawing(int(digit), random), pen))
    return np.stack(images), labels
