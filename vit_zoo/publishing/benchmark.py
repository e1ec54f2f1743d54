"""How large and how fast each file of a repository is, on this machine: a record beside them, kept while the file is the same."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_zoo.formats import open_artifact
from vit_zoo.hub.manifest import Item

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

RECORD = "measurements.json"
RUNS, SECONDS = 30, 10.0  # at most


class Measured(BaseModel):
    """One file; `milliseconds` is the median of one image at a time in onnxruntime on the CPU, None where it does not run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    bytes: int
    milliseconds: float | None = None
    runs: int = 0
    machine: str | None = None
    onnxruntime: str | None = None


class Record(BaseModel):
    """The measurements of a repository's files, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, Measured] = {}

    @classmethod
    def read(cls, text: str | None) -> Record:
        """An earlier record; nothing, where there is none that can be read."""
        try:
            return cls() if text is None else cls.model_validate_json(text)
        except ValidationError:
            return cls()

    def dumps(self) -> str:
        return json.dumps(self.model_dump(exclude_none=True), indent=2) + "\n"


def measure(items: list[Item], config: ModelConfig, earlier: Record) -> Record:
    """Each file anew, but those whose very bytes were measured before."""
    found = {}
    for item in items:
        known = earlier.files.get(item.name)
        found[item.name] = known if known is not None and known.sha256 == item.sha256 else _measured(item, config)
    return Record(files=found)


def _measured(item: Item, config: ModelConfig) -> Measured:
    size = item.size
    if not item.name.endswith(".onnx"):
        return Measured(sha256=item.sha256, bytes=size)
    import numpy as np
    import onnxruntime

    data = item.path.with_name(item.path.name + "_data")
    size += data.stat().st_size if data.is_file() else 0
    artifact = open_artifact(item.path)
    if "include" in artifact.about.export:  # takes whole images: as large as the model's
        image: Any = np.zeros((1, *config.spec.image_size, config.spec.channels), np.uint8)
    else:
        image = np.random.default_rng(0).standard_normal((1, config.spec.channels, *config.spec.image_size), np.float32)
    artifact.run(image)
    times: list[float] = []
    while len(times) < RUNS and sum(times) < SECONDS:
        start = time.perf_counter()
        artifact.run(image)
        times.append(time.perf_counter() - start)
    return Measured(
        sha256=item.sha256,
        bytes=size,
        milliseconds=float(f"{1000 * statistics.median(times):.3g}"),
        runs=len(times),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        onnxruntime=onnxruntime.__version__,
    )
