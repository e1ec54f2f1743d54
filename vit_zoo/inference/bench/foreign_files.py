"""Files of another library's module, written by torch's own exporters."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vit_zoo.parity.module_reference import named_outputs

if TYPE_CHECKING:
    from vit_zoo.parity.inputs import Frame

MAX_BATCH = 65_536


class Output(nn.Module):
    """A module that returns the first output of another one: the logits of a classifier."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: Tensor) -> Tensor:
        result = self.module(pixel_values)
        return result if isinstance(result, Tensor) else next(iter(named_outputs(result).values()))


def write_file(form: str, module: nn.Module, frame: Frame, path: Path) -> str | None:
    """Write a module as `torchscript`, `pt2` or `onnx`, with a free batch size. Return why that is not possible, or None."""
    example = torch.zeros(2, frame.channels, *frame.size)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")  # about the inside of the other library
            if form == "torchscript":
                torch.jit.save(torch.jit.trace(module, (example,), check_trace=False), path)  # type: ignore[no-untyped-call]
                return None
            shapes: dict[str, Any] = {"pixel_values": {0: batch}}
            if form == "pt2":
                torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False), path)
            else:
                torch.onnx.export(
                    module, (example,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False,
                    input_names=["pixel_values"], output_names=["output"],
                )  # fmt: skip
    except Exception as error:  # torch's exporters raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"torch cannot export it: {(lines or [type(error).__name__])[0][:200]}"
    return None


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep torch's log messages away from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
