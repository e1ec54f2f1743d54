"""Profile of an ONNX file in onnxruntime: the operators that run after graph optimisation, and the time of each kind."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from vit_zoo.files.folder import private_folder
from vit_zoo.formats.child import Child
from vit_zoo.formats.format import OpenOptions
from vit_zoo.formats.onnx_file import OnnxArtifact

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.sessions import Sessions

RUNS = 5  # timed runs, after one warm-up run


class Operator(BaseModel):
    """One kind of operator in the optimised graph: its count, the kernel time of one run, and its share of all kernel time.

    Operators of onnxruntime's own domain, such as `com.microsoft.FusedMatMul`, are the result of fusion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: str
    count: int
    milliseconds: float
    share: float


def _writing(child: Child) -> Child:
    """Return a child for the same file that may write the profile."""
    return Child(child.path, child.limits, size=child.size, writes=True)


def profile_operators(checked: Sessions, images: Array) -> tuple[Operator, ...]:
    """Run the file on the images with onnxruntime's profiler. Return the kinds of operators that ran, the slowest first."""
    with private_folder("profile") as folder:
        child = None if checked.child is None else _writing(checked.child)
        artifact = OnnxArtifact(checked.path, OpenOptions(child=child), profile=str(folder / "run"))
        for _ in range(1 + RUNS):
            artifact.run(images)
        events = json.loads(artifact.session.profile())
        if child is not None:
            child.close()
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    milliseconds: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    calls: dict[str, int] = defaultdict(int)
    for event in kernels:
        name, kind = event["args"].get("node_index", event["name"]), event["args"]["op_name"]
        nodes[kind].add(name)
        calls[name] += 1
        if calls[name] > 1:  # the first call is the warm-up
            milliseconds[kind] += event["dur"] / 1000 / RUNS
    total = sum(milliseconds.values()) or 1.0
    return tuple(
        Operator(
            operator=kind,
            count=len(nodes[kind]),
            milliseconds=round(milliseconds[kind], 4),
            share=round(milliseconds[kind] / total, 4),
        )
        for kind in sorted(nodes, key=lambda kind: -milliseconds[kind])
    )
