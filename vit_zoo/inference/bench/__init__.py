"""Benchmarks of exported files and models: rows measured in turn, with parity beside every speed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_zoo.inference.bench.result import Bench
    from vit_zoo.loading.checkpoint import ModelLike

__all__ = ["bench"]


def bench(
    targets: ModelLike | Sequence[ModelLike],
    *,
    runtimes: str | Sequence[str] | None = None,
    precision: str | Sequence[str] = (),
    batch: int | Sequence[int] | None = None,
    threads: int | Sequence[int] | None = None,
    rounds: int = 100,
    seconds: float = 60.0,
    random: bool = False,
    seed: int | None = None,
    against: ModelLike | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    **facts: Any,
) -> Bench:
    """Measure the speed and the memory of exported files and models on this CPU, with the parity of each.

    Each target in each runtime and precision, for each batch size and number of threads, is a row. It has a process of its own,
    and all processes stay open: in each round every row is measured once, in a shuffled order, after calls to warm up. First its
    outputs are compared with its reference on the same images. A row that fails has no times, and the result has `ok=False`.

    Args:
        targets: One target or several: an exported ONNX file; a model as in `load`, which is exported for the runtimes that need
            a file; or an architecture of another library with random weights, `timm:NAME`, `torchvision:NAME` or
            `transformers:NAME`, where NAME is a model type, a folder or a repository.
        runtimes: `eager` and `compile` (torch.compile), `torchscript`, `pt2` (torch.export), `ort` (onnxruntime) and
            `openvino`; by default all that are installed. Exported files run in `ort` and `openvino`.
        precision: Precisions of models, as in `export`; `fp32` by default. torch's runtimes have `fp32`, and `eager` and
            `compile` also `fp16` and `bf16`. Exported files keep their own.
        batch: Batch sizes, 1 by default, or the one that an exported file accepts.
        threads: Numbers of threads; by default as many as there are cores.
        rounds: Most rounds.
        seconds: Time after which no round begins, except for the first 6. Opening and checking the rows is not included.
        random: Use random weights for names and config files that have no weights of their own.
        seed: Seed for the random weights, 0 by default.
        against: What exported files are compared with, as in `verify`; by default the spec and weights in the file, for an int8
            file another target with the weights that it was made of, and for another tool's file the file itself without
            onnxruntime's optimiser.
        calibrate: A folder of images, for `int8-static`.
        time_limit: Exported files only: seconds that opening the file, or one run, may take, as in `open`.
        memory_limit: Exported files only: GB that the process may use, as in `open`.
        **facts: Fields of the spec of models, as in `load`.

    Raises:
        InputError: Options are unknown or contradict each other, a target does not exist, or a fact is missing.
        MissingDependency: A runtime or a library is not installed, or `compile` finds no C++ compiler.
        RefusedContent: A file cannot be read, or contains code.
    """
    from vit_zoo.inference.bench.run import BenchOptions, bench_targets

    options = BenchOptions(
        runtimes=None if runtimes is None else _several(runtimes), precisions=_several(precision),
        batches=None if batch is None else _several(batch), threads=None if threads is None else _several(threads),
        rounds=rounds, seconds=seconds, random=random, seed=seed, against=against, calibrate=calibrate,
        time_limit=time_limit, memory_limit=memory_limit,
    )  # fmt: skip
    named = [targets] if isinstance(targets, str | os.PathLike) or not isinstance(targets, Sequence) else list(targets)
    return bench_targets(named, options, facts)


def _several(values: Any) -> tuple[Any, ...]:
    """Return one value or several as a tuple without duplicates."""
    return tuple(dict.fromkeys(values)) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
