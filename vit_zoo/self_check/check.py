"""Self-check of an exported file: its outputs for the two test images, compared with those that the file states."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from vit_zoo.errors import InputError, OtherWeights, RefusedContent, printable
from vit_zoo.formats import describe, open_artifact
from vit_zoo.self_check.document import SelfCheckDocument, parse
from vit_zoo.self_check.recipe import IMAGES, batches, reduced

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Description
    from vit_zoo.self_check.document import Output

Run = Callable[[Any], Any]  # takes an input [batch, ...] and returns the outputs: one array, a sequence, or a mapping by name
CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"


class OutputCheck(BaseModel):
    """The comparison of one output; of the image, and of the number of it, that comes nearest to the limit or exceeds it.

    `difference` is relative to the largest value of the output. It is null if the output is not finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    image: Literal["noise", "pattern"]
    measure: Literal["values", "norm", "projection"]
    difference: float | None
    allowed: float
    ok: bool

    def __str__(self) -> str:
        return f"{self.output} {'is not finite' if self.difference is None else f'differs by {self.difference:.1e}'}{self._where}"

    @property
    def figures(self) -> str:
        """The difference, where it was measured, and what is allowed."""
        return f"{'not finite' if self.difference is None else f'{self.difference:.1e}'} of {self.output}{self._where}"

    @property
    def _where(self) -> str:
        return f" ({self.measure}, image '{self.image}'), allowed {self.allowed:.1e}"


class SelfCheck(BaseModel):
    """Result of a self-check: whether the file returned what it states, where it ran, and the comparison of each output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ok: bool
    file: str
    runtime: str  # "onnxruntime 1.23.0, CPUExecutionProvider", or the name of the function that ran it
    outputs: tuple[OutputCheck, ...]
    faults: tuple[str, ...]
    left_out: tuple[str, ...]  # outputs that the self-check does not cover

    def summary(self) -> str:
        """Return the result in one line for people."""
        if self.faults:
            return self.faults[0]
        return f"largest difference {max(self.outputs, key=_share).figures}"

    def __repr__(self) -> str:
        return printable(f"<SelfCheck {self.file}: {'passed' if self.ok else 'FAILED'} in {self.runtime}, {self.summary()}>")

    __str__ = __repr__


def selfcheck(
    artifact: str | os.PathLike[str],
    *,
    run: Run | None = None,
    provider: str | None = None,
    threads: int | None = None,
    tolerance: float | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> SelfCheck:
    """Check on this machine that an exported file computes what it did when it was exported.

    The file states what its outputs are for two test images, so that neither torch nor the model is needed. A file that fails
    does not raise an error: the result has `ok=False`.

    Args:
        artifact: An exported file.
        run: A function that runs the file, or what was made of it, on another runtime or device: it takes the input as an array,
            and returns an array, a sequence of arrays in the order of the outputs, or a mapping by name. By default, onnxruntime
            runs the file. TorchScript and .pt2 files need it, because loading them runs code in them.
        provider: Execution provider of onnxruntime, such as `"CUDAExecutionProvider"`, or `"cuda"`; by default the CPU's. If
            onnxruntime cannot use it, that is an error.
        threads: Number of onnxruntime threads.
        tolerance: Relative difference to allow, above 0 and below 1, in place of those that the file states; for a device that
            computes in another precision than the file, or for a file that another tool has converted.
        time_limit: Seconds that opening the file, or one run, may take, as in `open`.
        memory_limit: GB that the child process may use, as in `open`.

    Raises:
        InputError: The file does not exist, an option does not apply, or the provider is not available.
        RefusedContent: The file has no self-check, or cannot be read.
        Stopped: The file reached a limit, or onnxruntime crashed.
    """
    path = Path(artifact)
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f"tolerance must be above 0 and below 1, got {tolerance}")
    if not path.is_file():
        raise InputError("no such file" if not os.path.lexists(path) else "expected an exported file", where=path)
    about = describe(path)
    document = document_in(about).with_tolerance(tolerance)
    if run is not None:
        options = {"provider": provider, "threads": threads, "time_limit": time_limit, "memory_limit": memory_limit}
        for name, value in options.items():
            if value is not None:
                raise InputError(f"{name} applies to onnxruntime; it cannot be combined with run")
        return compare(document, run, about.path.name, getattr(run, "__qualname__", type(run).__name__))
    if not about.graph:
        hint = "vit_zoo.selfcheck(FILE, run=FUNCTION) in Python takes a function that runs it"
        raise InputError(f"{about.format} files contain code, which is not run", where=path, hint=hint)
    chosen = None if provider is None else provider_named(provider)
    try:
        opened = open_artifact(
            path, providers=None if chosen is None else [chosen], threads=threads, time_limit=time_limit,
            memory_limit=memory_limit,
        )  # fmt: skip
    except OtherWeights as error:
        return _failed(document, path.name, _runtime(chosen), [error.message])
    try:
        return compare(document, opened.run, path.name, _runtime(chosen))
    finally:
        opened.close()


def document_in(about: Description) -> SelfCheckDocument:
    """Return the self-check of a file. Raises RefusedContent if it has none."""
    if about.selfcheck is None:
        off = about.export.get("verify") == "off"
        hint = "it was exported with --verify off" if off else "`vitzoo export` writes files with one"
        hint = "it takes patches; a self-check is for files that take images" if about.takes_patches else hint
        raise RefusedContent("has no self-check", where=about.path, hint=hint)
    return parse(about.selfcheck, where=about.path)


def provider_named(name: str) -> str:
    """Return the name of an execution provider from its full name, or from the part that is its own, such as `cuda`."""
    import onnxruntime

    known = onnxruntime.get_available_providers()
    for each in known:
        if name.lower() in (each.lower(), each.removesuffix(SUFFIX).lower()):
            return str(each)
    raise InputError(f"onnxruntime has no execution provider {name!r} here; choose from {', '.join(known)}")


def compare(document: SelfCheckDocument, run: Run, file: str, runtime: str) -> SelfCheck:
    """Run the test images and compare every output. A failure of onnxruntime is a fault; other errors are raised."""
    checks: dict[str, OutputCheck] = {}
    shape = document.input.shape
    for first, images in enumerate(batches(shape, document.input.type)):
        try:
            returned = run(images)
        except (InputError, RefusedContent) as error:
            return _failed(document, file, runtime, [f"cannot be run: {error.message}"])
        outputs = _named(returned, document)
        for wanted in document.outputs:
            x = outputs.get(wanted.name)
            if x is None or x.shape != wanted.shape:
                got = "no such output" if x is None else str(list(x.shape))
                fault = f"output {wanted.name!r}: expected shape {list(wanted.shape)}, got {got}"
                return _failed(document, file, runtime, [fault])
            for row, values in enumerate(x):
                check = _checked(values, wanted, (row + first) % 2)
                known = checks.get(wanted.name)
                checks[wanted.name] = check if known is None else max(known, check, key=_share)
    faults = [str(check) for check in checks.values() if not check.ok]
    return SelfCheck(
        ok=not faults,
        file=file,
        runtime=runtime,
        outputs=tuple(checks.values()),
        faults=tuple(faults),
        left_out=document.left_out,
    )


def _checked(values: Array, wanted: Output, image: int) -> OutputCheck:
    """Compare the output for one image. Norm and projection may differ by as much as if every value did by the tolerance."""
    found = reduced(values, len(wanted.values[image]))
    scale = wanted.largest[image] or 1.0
    of_all = scale * math.sqrt(values.size)
    differences = {
        "values": float(np.abs(np.subtract(found.values, wanted.values[image])).max()) / scale,
        "norm": abs(found.norm - wanted.norm[image]) / of_all,
        "projection": abs(found.projection - wanted.projection[image]) / of_all,
    }
    measure, worst = max(differences.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
    return OutputCheck(
        output=wanted.name, image=IMAGES[image], measure=measure, difference=worst if math.isfinite(worst) else None,
        allowed=wanted.tolerance, ok=worst <= wanted.tolerance,
    )  # fmt: skip


def _named(outputs: Any, document: SelfCheckDocument) -> dict[str, Array]:
    """Return what a function returned as arrays by the names of the outputs."""
    if isinstance(outputs, Mapping):
        return {str(name): np.asarray(value) for name, value in outputs.items()}
    values = list(outputs) if isinstance(outputs, Sequence) and not hasattr(outputs, "shape") else [outputs]
    names = [output.name for output in document.outputs]
    if document.left_out or len(values) != len(names):
        raise InputError(f"run returned {len(values)} outputs; expected a mapping by name, or {len(names)} in order")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _failed(document: SelfCheckDocument, file: str, runtime: str, faults: Sequence[str]) -> SelfCheck:
    return SelfCheck(ok=False, file=file, runtime=runtime, outputs=(), faults=tuple(faults), left_out=document.left_out)


def _share(check: OutputCheck) -> float:
    return math.inf if check.difference is None else check.difference / check.allowed


def _runtime(provider: str | None) -> str:
    from importlib.metadata import version

    return f"onnxruntime {version('onnxruntime')}, {provider or CPU}"
