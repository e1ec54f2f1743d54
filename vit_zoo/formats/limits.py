"""Limits of time and memory for files that are not trusted, and their defaults, which follow from the size of the file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from vit_zoo.errors import InputError, Option

TIME, MEMORY = Option("time_limit", "SECONDS"), Option("memory_limit", "GB")
SECONDS = 15.0  # beyond what the size of a file explains
MOST_SECONDS, LEAST_GB = 1e6, 0.25
# Time, several times what a core of 2015 needs: to read a file, and to run it on one image. A transformer multiplies each weight
# with each token; every byte of weights counts as half of an operation, and every 8x8 pixels as a token.
BYTES_PER_SECOND, OPERATIONS_PER_SECOND, PIXELS_PER_TOKEN = 50e6, 10e9, 64
PER_CALL = 0.25  # seconds
# Memory: onnxruntime holds a file's weights as a message, as tensors, and as the layout that its kernels read. Activations are
# those of a ViT with 16 heads and 14x14 patches: four tables of attention, and four times the widest layer.
BASE, PER_THREAD, COPIES = 768e6, 16e6, 4
PIXELS_PER_PATCH, HEADS, WIDEST, LIVE = 196, 16, 6656, 4
PER_VALUE = 32  # bytes for each value of the input, for preprocessing in the file
LARGEST = 4096 * 4096  # pixels of an image that the defaults take into account


@dataclass(frozen=True)
class Limits:
    """Limits of a child process; None stands for the default of the file.

    Attributes:
        seconds: Wall-clock time to open the file and for all its runs.
        memory: Bytes.
    """

    seconds: float | None = None
    memory: float | None = None

    @classmethod
    def of(cls, time_limit: float | None, memory_limit: float | None) -> Limits:
        """Return limits in seconds and in GB. Raises InputError for values out of range."""
        for name, value, least, most, message in (
            (TIME.name, time_limit, 0.0, MOST_SECONDS, f"must be above 0 and at most {MOST_SECONDS:,.0f} seconds"),
            (MEMORY.name, memory_limit, LEAST_GB, math.inf, f"must be at least {LEAST_GB} GB"),
        ):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and least <= value < most and value):
                given = Option(name, repr(value))
                raise InputError(f"{given} {message}", options=[given])
        return cls(time_limit, None if memory_limit is None else memory_limit * 1e9)


class Clock:
    """The time that a file may take, and has taken."""

    def __init__(self, limits: Limits) -> None:
        self._given = limits.seconds
        self.allowed = SECONDS if limits.seconds is None else limits.seconds
        self.used = 0.0

    def left(self, work: float) -> float:
        """Return the seconds that are left, if a call may take `work` seconds more."""
        if self._given is None:
            self.allowed += work
        return max(self.allowed - self.used, 0.001)


def seconds_to_open(size: int) -> float:
    """Return what reading and optimising a file of this size may take on a slow machine."""
    return PER_CALL + size / BYTES_PER_SECOND


def seconds_to_run(size: int, images: int, pixels: int) -> float:
    """Return what running a file of this size on so many images of so many pixels may take on a slow machine."""
    return PER_CALL + images * min(pixels, LARGEST) / PIXELS_PER_TOKEN * size / 2 / OPERATIONS_PER_SECOND


def memory_to_run(size: int, images: int, pixels: int, values: int) -> float:
    """Return the bytes that a file of this size may need for so many images of so many pixels, and input values in all."""
    tokens = min(pixels, LARGEST) / PIXELS_PER_PATCH
    activations = LIVE * 4 * images * tokens * (HEADS * tokens + WIDEST)
    return BASE + PER_THREAD * (os.cpu_count() or 1) + COPIES * size + activations + PER_VALUE * values
