"""Size and speed of each file of a repository on this machine, recorded next to the files until they change."""

from __future__ import annotations

import json
import os
import platform
import statistics
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vit_zoo.formats import open_artifact
from vit_zoo.formats.timing import seconds_of, warm_up
from vit_zoo.hub.manifest import Item
from vit_zoo.progress import counted

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

RECORD = "measurements.json"
RUNS, SECONDS = 30, 10.0  # at most
Word = Annotated[str, Field(max_length=200)]


class Measurement(BaseModel):
    """The measurements of one file.

    `milliseconds` is the median latency at batch size 1 in onnxruntime on the CPU, or None for a file that is not ONNX.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    milliseconds: Annotated[float, Field(ge=0, lt=1e9)] | None = None
    runs: Annotated[int, Field(ge=0, le=RUNS)] = 0
    machine: Word | None = None
    onnxruntime: Word | None = None


class Record(BaseModel):
    """The measurements of a repository's files, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, Measurement] = {}

    @classmethod
    def read(cls, text: str | None) -> Record:
        """Parse an earlier record. Returns an empty one if there is none, or it is not valid."""
        try:
            return cls() if text is None else cls.model_validate_json(text)
        except ValidationError:
            return cls()

    def dumps(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.model_dump(exclude_none=True), indent=2) + "\n"


def measure(items: list[Item], config: ModelConfig, earlier: Record) -> Record:
    """Measure each file, except files whose bytes were measured before."""
    files = {}
    for item in counted(items, "measuring", len(items), "files"):
        known = earlier.files.get(item.name)
        files[item.name] = known if known is not None and known.sha256 == item.sha256 else _measure(item, config)
    return Record(files=files)


def _measure(item: Item, config: ModelConfig) -> Measurement:
    size = item.size
    if not item.name.endswith(".onnx"):
        return Measurement(sha256=item.sha256, bytes=size)
    import numpy as np
    import onnxruntime

    data = item.path.with_name(item.path.name + "_data")
    size += data.stat().st_size if data.is_file() else 0
    artifact = open_artifact(item.path, isolated=False)  # verified before, and timed as in a user's process
    if "include" in artifact.about.export:  # takes images of any size; the model's own is measured
        image: Any = np.zeros((1, *config.spec.image_size, config.spec.channels), np.uint8)
    else:
        shape = (artifact.fixed_batch or 1, config.spec.channels, *config.spec.image_size)
        image = np.random.default_rng(0).standard_normal(shape, np.float32)
    warm_up(lambda: artifact.run(image))
    times: list[float] = []
    while len(times) < RUNS and sum(times) < SECONDS:
        times.append(seconds_of(lambda: artifact.run(image)))
    return Measurement(
        sha256=item.sha256,
        bytes=size,
        milliseconds=float(f"{1000 * statistics.median(times) / len(image):.3g}"),
        runs=len(times),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        onnxruntime=onnxruntime.__version__,
    )
