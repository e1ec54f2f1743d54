"""A reference's results for a stack of images: float32 for every image, float64 for those whose verdict depends on it.

An image of a float32 file that is within the smallest tolerance (that of a floor of 0) of torch's float32 result is within its
own tolerance of the float64 result too, since float32 and float64 differ by the floor, of which the tolerance allows 8. So
only images that differ by more need float64, which takes twice as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from vit_zoo.parity.tolerance import angles, relative
from vit_zoo.progress import part

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.tolerance import Tolerance

Float64 = Literal["never", "where it matters", "always"]
KEPT = 64 * 2**20  # bytes of results that are kept for the next file with the same reference


class Expected:
    """What a file should return for these images.

    * `values`: by output, the results (b ...) in float64; in float32 precision for images that are not `measured`.
    * `floors`: by output, the relative difference (b) of torch's float32 from float64; NaN where it is not measured.
    * `measured`: for which images (b) float64 was computed.
    """

    def __init__(self, reference: Reference, images: Array, outputs: Sequence[str], use: Float64) -> None:
        self.reference, self.images, self.outputs = reference, images, tuple(outputs)
        with part(f"{len(images)} images in the model, float32"):
            self.single = reference.single(images, reference.for_floors(outputs))
        self.values = {name: self.single[name].astype("<f8") for name in outputs}
        self.floors = {name: np.full(len(images), np.nan) for name in outputs}
        self.measured = np.zeros(len(images), bool)
        self.measurable = use != "never" and reference.has_float64
        if use == "always":
            self.measure(range(len(images)))

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self.single.values(), *self.values.values(), self.images))

    def measure(self, rows: Iterable[int]) -> bool:
        """Compute these images in float64 where that is possible and not done yet. Return whether there were any."""
        todo = [row for row in dict.fromkeys(rows) if not self.measured[row]]
        if not todo or not self.measurable:
            return False
        with part(f"{len(todo)} images in the model, float64"):
            double = self.reference.double(self.images[todo], self.outputs)
        floors = self.reference.floors({name: x[todo] for name, x in self.single.items()}, double)
        for name in self.outputs:
            self.values[name][todo], self.floors[name][todo] = double[name], floors[name]
        self.measured[todo] = True
        return True

    def distances(self, actual: Mapping[str, Array], rows: Sequence[int], tolerance: Tolerance) -> Array:
        """Return how far each image's outputs are from float32 results, in tolerances of a floor of 0. NaN counts as infinite.

        `actual` are values of the rows, by this reference's names. Outputs of other shapes are left out.
        """
        far = np.zeros(len(rows))
        for name, values in actual.items():
            single = self.single[name][list(rows)]
            if values.shape == single.shape:
                with np.errstate(invalid="ignore", over="ignore"):
                    x = values.astype("<f8")
                    each = relative(x, single) / tolerance.allowed(np.zeros(len(rows)))
                    far = np.maximum(far, np.maximum(each, angles(x, single) / tolerance.angle))
        return np.nan_to_num(far, nan=np.inf)
