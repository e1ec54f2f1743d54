"""The checked side: an exported file with its open session, or a model in memory in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vit_zoo.formats import describe, open_in
from vit_zoo.formats.onnx_file import OnnxArtifact, check_companion
from vit_zoo.formats.onnx_skeleton import declared
from vit_zoo.formats.session import return_memory
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.patch_inputs import image_axes
from vit_zoo.progress import part

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.formats.child import Child
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.parity.reference import ModelReference


class Runnable(Protocol):
    """An opened file or a model in memory."""

    def run(self, pixel_values: Array) -> dict[str, Array]: ...


class Sessions:
    """An exported file and its open session, with the optimiser on or off.

    Only one session is open at a time, since two would hold the weights twice. `axes` is the declared input shape of an ONNX
    file, and None for other formats. `child` is the process that opens the file; None for this one, which is for files that
    it has just written.
    """

    def __init__(self, path: Path, child: Child | None = None) -> None:
        self.path, self.child, self.about = path, child, describe(path)
        self.options = None if self.about.config is None else GraphOptions.of(self.about.export)
        self.axes: tuple[int | str, ...] | None = None
        self._open: dict[bool, Artifact] = {}
        if self.about.graph:  # read the declared shapes before the weights are in memory
            check_companion(self.about)
            self.outputs, self.axes = declared(path)
            if self.about.takes_patches:
                self.axes = image_axes(self.about.known_config().spec)
        else:
            self.outputs = self.get().outputs

    @property
    def prepares(self) -> Preprocess | None:
        """The preprocessing inside the file, or None if it takes prepared images."""
        config, options = self.about.config, self.options
        return None if config is None or options is None or options.include is None else config.preprocess

    @property
    def batch(self) -> int | None:
        """The only batch size that the file accepts, or None if it accepts any."""
        return self.axes[0] if self.axes and isinstance(self.axes[0], int) else None

    def get(self, optimised: bool = True) -> Artifact:
        """Open the file, unless it is open already, with onnxruntime's optimiser on or off."""
        if not self.about.graph:  # no optimiser to switch off
            optimised = True
        if optimised not in self._open:
            self._release()
            with part(f"opening it, optimiser {'on' if optimised else 'off'}" if self.about.graph else "opening it"):
                self._open[optimised] = open_in(self.child, self.path, optimised=optimised)
        return self._open[optimised]

    def opened(self) -> Artifact:
        """Return the file as it is open, or open it."""
        return next(iter(self._open.values()), None) or self.get()

    def inner_values(self, names: Sequence[str], images: Array) -> dict[str, Array]:
        """Run an ONNX file with the optimiser off. Return its outputs, and its internal values of the given names."""
        self._release()
        return OnnxArtifact.with_values(self.path, names, self.child).run(images)

    def close(self) -> None:
        """Close the session, and end the child process if there is one."""
        self._release()
        if self.child is not None:
            self.child.close()

    def _release(self) -> None:
        """Close the session and return its memory, 350 MiB for ViT-B/16.

        A child process does that when it opens the next one.
        """
        self._open.clear()
        if self.child is None:
            return_memory()


class Computed:
    """A model in memory in the place of `Sessions`; it has no file and no optimiser."""

    def __init__(self, model: ModelReference, outputs: tuple[str, ...]) -> None:
        self.model, self.outputs = model, outputs

    def get(self, optimised: bool = True) -> Computed:
        return self

    def run(self, pixel_values: Array) -> dict[str, Array]:
        return self.model.single(pixel_values, self.outputs)
