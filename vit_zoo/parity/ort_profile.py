"""What onnxruntime makes of a graph: the operators that it runs after its optimisation, and how long each kind takes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from vit_zoo.formats.onnx_file import OnnxArtifact

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

RUNS = 5  # after one that warms up


class Operator(BaseModel):
    """A kind of operator in the optimised graph: how many, the time of their kernels in one run, its share of all kernels'.

    Those of onnxruntime's own domain, such as `com.microsoft.FusedMatMul`, are what it fused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: str
    count: int
    milliseconds: float
    share: float


def receipt(path: Path, images: Array) -> tuple[Operator, ...]:
    """The operators that ran, the slowest kind first, from onnxruntime's profile of some runs on these images."""
    with TemporaryDirectory(prefix="vitzoo-") as folder:
        artifact = OnnxArtifact(path, providers=None, threads=None, optimised=True, profile=Path(folder) / "run")
        for _ in range(1 + RUNS):
            artifact.run(images)
        events = json.loads(Path(artifact.session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    spent: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    seen: dict[str, int] = defaultdict(int)
    for event in kernels:
        name, kind = event["args"].get("node_index", event["name"]), event["args"]["op_name"]
        nodes[kind].add(name)
        seen[name] += 1
        if seen[name] > 1:
            spent[kind] += event["dur"] / 1000 / RUNS
    total = sum(spent.values()) or 1.0
    return tuple(
        Operator(operator=kind, count=len(nodes[kind]), milliseconds=round(spent[kind], 4), share=round(spent[kind] / total, 4))
        for kind in sorted(nodes, key=lambda kind: -spent[kind])
    )
