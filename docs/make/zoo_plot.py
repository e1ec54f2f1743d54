"""Plot of accuracy against cost for every published checkpoint with a reported accuracy, as part of the zoo's page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from svg import TEXT, line, number, picture, text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 436, 44, 20, 20, 62
COSTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)  # GMACs, on a logarithmic axis
LABELLED = (1, 10, 100, 1000)
ACCURACIES = (70, 75, 80, 85, 90)  # percent


@dataclass(frozen=True, kw_only=True)
class Point:
    """A checkpoint: its cost in GMACs and its ImageNet-1k accuracy in percent."""

    name: str
    gmacs: float
    top1: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the checkpoints that no other one beats at the same or a lower cost, cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.gmacs, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def plot(points: Sequence[Point]) -> str:
    """Return the SVG picture. assets/zoo.js names the point under the pointer, and dims those that the filter leaves out."""
    best = frontier(points)
    parts = [*_axes(), _steps(best)]
    for point in [*(each for each in points if each not in best), *best]:  # the best on top
        kind = ' class="best"' if point in best else ""
        name = html.escape(point.name)
        place = f'cx="{number(_x(point.gmacs))}" cy="{number(_y(point.top1))}" r="4.5"'
        title = f"<title>{name}: {point.top1:.2f} %, {point.gmacs:.2f} GMACs</title>"
        parts.append(f'<circle{kind} {place} data-name="{name}">{title}</circle>')
    description = (
        f"{len(points)} checkpoints. The line connects the most accurate ones for their cost, from {best[0].top1:.1f} % at "
        f"{best[0].gmacs:.1f} GMACs to {best[-1].top1:.1f} % at {best[-1].gmacs:.0f} GMACs. The tables below contain all values."
    )
    return picture(WIDTH, HEIGHT, "ImageNet-1k top-1 accuracy against GMACs", parts, description=description)


def _axes() -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [line(_x(cost), TOP, _x(cost), bottom) for cost in COSTS]
    parts += [line(LEFT, _y(accuracy), right, _y(accuracy)) for accuracy in ACCURACIES]
    parts += [text(_x(cost), bottom + 22, f"{cost}", anchor="middle", colour=TEXT) for cost in LABELLED]
    parts += [text(LEFT - 8, _y(accuracy) + 4, f"{accuracy}", anchor="end", colour=TEXT) for accuracy in ACCURACIES]
    parts.append(text((LEFT + right) / 2, HEIGHT - 8, "GMACs for one image", anchor="middle", colour=TEXT))
    parts.append(text(LEFT + 8, TOP + 16, "top-1 accuracy, %", colour=TEXT))
    return parts


def _steps(best: Sequence[Point]) -> str:
    """Return the line along the best checkpoints: accuracy stays the same until a better one is affordable."""
    path = f"M{number(_x(best[0].gmacs))} {number(_y(best[0].top1))}"
    path += "".join(f"H{number(_x(point.gmacs))}V{number(_y(point.top1))}" for point in best[1:])
    return f'<path class="best" d="{path}" fill="none"/>'


def _x(gmacs: float) -> float:
    low, high = math.log(COSTS[0]), math.log(COSTS[-1])
    return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(gmacs) - low) / (high - low)


def _y(top1: float) -> float:
    low, high = ACCURACIES[0], ACCURACIES[-1]
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - top1) / (high - low)
