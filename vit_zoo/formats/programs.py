"""TorchScript and .pt2 files: torch's own exported programs, with a free batch size.

Loading either format runs code in it, so only the process that wrote a file opens it (docs/decisions).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor, nn

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Staged, sha256_of
from vit_zoo.formats.artifact import EMBEDDED, Artifact, Description, embedded
from vit_zoo.formats.torch_archive import write_again
from vit_zoo.model import forward
from vit_zoo.model.torch_ops import EVAL

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.vit import ViT

MAX_BATCH = 65_536  # the upper end of the batch axis that a .pt2 file declares
ORIGINS = (
    "stack_trace",
    "nn_module_stack",
    "torch_fn",
    "source_fn_stack",
    "from_node",
)  # metadata of a node that holds paths, source lines, modules
_written: set[str] = set()  # SHA-256 of the files that this process wrote


class Program(nn.Module):
    """The exported module: takes images, returns the named outputs as a tuple, or a single output as a tensor."""

    def __init__(self, model: ViT, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs
        self.activation = model.config.activation or "softmax"

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = forward.vit(self.model, pixel_values, self.model.spec, EVAL, self.outputs, self.activation)
        values = tuple(outputs[name] for name in self.outputs)
        return values[0] if len(values) == 1 else values


def write_torchscript(model: ViT, outputs: tuple[str, ...], staged: Staged, export: Mapping[str, Any]) -> None:
    """Trace the model at batch size 2. The result runs at any batch size, without einops and without this package."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch 2.13 deprecates all of TorchScript
        traced = _traced(Program(model, outputs).eval(), _example(model))
        buffer = io.BytesIO()  # torch.jit.save aborts the process on a full disk
        torch.jit.save(traced, buffer, _extra_files={EMBEDDED: embedded(model.config, export).encode()})
    _write(staged, buffer)


def write_pt2(model: ViT, outputs: tuple[str, ...], staged: Staged, export: Mapping[str, Any]) -> None:
    """Export the program for batch sizes 1 to MAX_BATCH. An example of batch size 1 would fix the batch size."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(
        Program(model, outputs).eval(), (_example(model),), dynamic_shapes={"pixel_values": {0: batch}}, strict=False
    )
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ORIGINS:
                node.meta.pop(key, None)
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={EMBEDDED: embedded(model.config, export)})
    _write(staged, buffer)


def _traced(program: Program, example: Tensor) -> Any:
    """Return a trace whose class names are all numbered, as in every trace of a process except its first."""
    while True:
        traced = torch.jit.trace(program, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        if all("___torch_mangle_" in part._c._type().qualified_name() for part in traced.modules()):
            return traced


def load_torchscript(file: BinaryIO) -> Any:
    return torch.jit.load(file)  # type: ignore[no-untyped-call]


def load_pt2(file: BinaryIO) -> Any:
    return torch.export.load(file).module()


class ProgramArtifact(Artifact):
    """A TorchScript or .pt2 file that this process wrote."""

    def __init__(self, path: Path, about: Description, load: Callable[[BinaryIO], Any]) -> None:
        super().__init__(about)
        if sha256_of(path) not in _written:
            raise RefusedContent(
                f"{about.format} files contain code, which is not run",
                where=path,
                hint="they are verified on export; use ONNX to run a file",
            )
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            self.program = load(file)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.about.export["outputs"])

    def run(self, pixel_values: Array) -> dict[str, Array]:
        with torch.inference_mode():
            try:
                outputs = self.program(torch.from_numpy(pixel_values))
            except Exception as error:  # a failed guard, or a runtime error of the program
                raise InputError(f"cannot run images of shape {list(pixel_values.shape)}: {error}", where=self.path) from None
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}


def _example(model: ViT) -> Tensor:
    return torch.zeros(2, model.spec.channels, *model.spec.image_size, dtype=next(model.parameters()).dtype)


def _write(staged: Staged, buffer: io.BytesIO) -> None:
    staged.write(lambda file: write_again(buffer, file))
    _written.add(sha256_of(staged.path))
