"""The parent's side of a row's process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent
from vit_zoo.formats.child import Child
from vit_zoo.formats.limits import Limits, memory_to_run, seconds_to_open, seconds_to_run
from vit_zoo.formats.session import SessionError
from vit_zoo.formats.timing import WARM
from vit_zoo.inference.bench import worker

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

LIBRARIES = {"ort": "onnxruntime", "openvino": "openvino"}  # the others are torch's
PROGRAM = f"import json, sys; sys.path[:] = json.loads(sys.argv[1])[0]; from {worker.__name__} import main; main()"
TRUSTED = 3600.0  # seconds that a model of our own making may take for one call: torch.compile takes minutes


class RowProcess(Child):
    """A process with one model open in one runtime.

    * `opening`: the model, as `worker.open_runner` reads it.
    * `size`: bytes of a file that is not trusted, whose time and memory are limited; 0 for a model that we made.
    """

    def __init__(self, path: Path, opening: dict[str, Any], limits: Limits, size: int) -> None:
        self.opening, self.trusted = opening, size == 0
        self.runner = LIBRARIES.get(opening["runtime"], "torch")
        super().__init__(path, limits, size=size, total=False, writes=self.runner == "torch")

    def _command(self, dies_with: int) -> list[str]:
        paths = [path for path in sys.path if path]  # it imports what this process imports, and nothing of the current folder
        return ["-P", "-c", PROGRAM, json.dumps([paths, self.writes, dies_with])]

    def _environment(self) -> dict[str, str]:
        more = {"OMP_NUM_THREADS": str(self.opening["threads"])}
        if self.runner != "torch":
            return {**super()._environment(), **more}
        # inductor would start processes of its own, which outlive the compilation
        return {**os.environ, **more, "TORCHINDUCTOR_COMPILE_THREADS": "1"}

    def open_model(self) -> None:
        """Open the model. Raises RefusedContent if the runtime cannot, and Stopped."""
        self.start()
        self._ask({"do": "open", **self.opening}, (), 0, 0, work=seconds_to_open(self.size))

    def run(self, pixel_values: Array) -> dict[str, Array]:  # type: ignore[override]
        """Run images (b ...), and return the outputs by name. Raises RefusedContent and Stopped."""
        reply, values = self._ask({"do": "run"}, (pixel_values,), len(pixel_values), _pixels(pixel_values))
        return dict(zip(reply["names"], values, strict=True))

    def hold(self, images: Array) -> None:
        """Let the process keep images, which `seconds` measures."""
        self._ask({"do": "hold"}, (images,), len(images), _pixels(images))
        self._held = len(images), _pixels(images)

    def seconds(self) -> float:
        """Return the seconds of one call with the images that it holds, after others to warm up."""
        return float(self._ask({"do": "time"}, (), *self._held)[0]["seconds"])

    def peak(self) -> int | None:
        """Return the peak memory of the process in bytes, or None where it is not known."""
        peak: int | None = self._ask({"do": "peak"}, (), 0, 0)[0]["peak"]
        return peak

    def _ask(
        self, request: dict[str, Any], arrays: tuple[Array, ...], images: int, pixels: int, *, work: float | None = None
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send a request, under the limits of a file that is not trusted."""
        values = sum(x.size for x in arrays)
        if work is None:  # two calls at least
            work = 2 * seconds_to_run(self.size, images, pixels) + WARM
        memory = self.limits.memory or memory_to_run(self.size, images, pixels, values)
        try:
            if self.trusted:
                return self.call(request, arrays, work=TRUSTED, memory=None)
            return self.call(request, arrays, work=work, memory=memory)
        except SessionError as error:
            raise RefusedContent(f"{self.runner} failed: {error.text}") from None


def _pixels(images: Array) -> int:
    """Return the pixels of one image; the third axis is that of the channels."""
    sides = sorted(images.shape[1:])[-2:]
    return int(sides[0] * sides[-1])
