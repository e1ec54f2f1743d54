"""Features of many images, computed by an exported file: written to one file, resumed after any interruption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_zoo.errors import InputError, RefusedContent, notice, shown
from vit_zoo.files.image_list import list_images
from vit_zoo.files.partial import Partial, partial_result
from vit_zoo.files.sniff import sha256_of
from vit_zoo.files.stored_list import pieces, store_list
from vit_zoo.formats import describe
from vit_zoo.formats.onnx_admission import external_names
from vit_zoo.inference.embed.files import TYPES, Content, FeatureFile
from vit_zoo.inference.embed.folder import FeatureFolder
from vit_zoo.inference.embed.part_writer import PartWriters
from vit_zoo.inference.embed.parts import Parts
from vit_zoo.inference.engine import Engine, engine_of
from vit_zoo.inference.preparation import worker_options
from vit_zoo.inference.versions import versions
from vit_zoo.inference.worker import Chunk, ImageWorker, Rows, WorkerOptions, chunk_size
from vit_zoo.progress import step

if TYPE_CHECKING:
    import pandas as pd

    from vit_zoo.files.image_list import Sources
    from vit_zoo.formats.artifact import Array
    from vit_zoo.loading.stated import PreprocessLike

IMAGES = "images.jsonl"  # the list of images in the folder of the partial result


@dataclass(frozen=True)
class Embeddings:
    """A written file of features.

    Attributes:
        path: The file, or the folder of Parquet files.
        images: The number of images in it.
        width: The length of each image's features.
        dtype: Their type.
        output: Where they come from: an output of the model, or `OUTPUT:PART`.
        normalised: Whether each has length 1.
        failed: The number of images that could not be read.
        failures: The table of these, with the reasons; None if there are none.
        table: The table of the images next to a `.npy` or `.safetensors` file, in the same order.
    """

    path: Path
    images: int
    width: int
    dtype: str
    output: str
    normalised: bool
    failed: int
    failures: Path | None
    table: Path | None

    def __str__(self) -> str:
        count = f"{self.images:,} image{'s' if self.images != 1 else ''}"
        text = f"{self.path}: {self.output} of {count}, {self.dtype} [{self.images}, {self.width}]"
        text += ", normalised" if self.normalised else ""
        if self.failed:
            text += f"\n{self.failures}: {self.failed:,} image{'s' if self.failed > 1 else ''} could not be read"
        return text

    def features(self) -> Array:
        """Return the features, [images, width]."""
        import numpy as np

        if self.path.suffix == ".npy":
            features: Array = np.load(self.path, mmap_mode="r")
            return features
        if self.path.suffix == ".safetensors":
            from vit_zoo.files import SafetensorsFile

            return SafetensorsFile(self.path).tensors["features"].array()
        from vit_zoo.files.image_list import parquet

        column = parquet().read_table(self.path, columns=["features"])["features"].combine_chunks()
        return column.values.to_numpy().reshape(-1, self.width)  # type: ignore[no-any-return]

    def to_pandas(self) -> pd.DataFrame:
        """Return path, height, width and features of each image as a data frame."""
        import pandas as pd

        if self.table is None:
            return pd.read_parquet(self.path)
        return pd.read_csv(self.table, keep_default_na=False).assign(features=list(self.features()))


def embed(
    artifact: str | os.PathLike[str],
    images: Sources,
    out: str | os.PathLike[str],
    *,
    output: str | None = None,
    normalise: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    batch: int | None = None,
    workers: int | None = None,
    column: str | None = None,
    preprocess: PreprocessLike | None = None,
    fast_crop: bool = False,
    force: bool = False,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Embeddings:
    """Compute the features of images with an exported ONNX file, and write them to a file.

    Finished chunks of images are kept in the folder `OUT.partial`. After an interruption, the same call computes the missing
    ones, and the result is the same as without. Images that cannot be read are listed in `OUT.failures.csv`. The memory that it
    takes does not depend on the number of images.

    Args:
        artifact: An exported ONNX file of any tool. Other tools' files need `preprocess`.
        images: One source or several: image files, folders, patterns such as `photos/**/*.jpg`, list files (`.txt`), tables with
            a column of paths (`.csv`, `.parquet`), archives (`.tar`, in WebDataset's layout).
        out: The file to write, by its suffix. `.parquet`: path, height and width before any change, and features of each image.
            `.npy` and `.safetensors`: the features alone, with a table of the images in `OUT.csv`. A name without a suffix is
            that of a folder, which gets Parquet files of 65,536 images each.
        output: What is taken as the features: the name of an output [batch, width]; or `class_token`, `dist_token`, `patch_mean`
            or `token_mean` of `last_hidden_state`, or of another output of tokens, as in `block.5:patch_mean`. By default
            `image_embeds`, `pooler_output`, or `last_hidden_state:class_token` (`:patch_mean` if the model has no class token),
            whichever the file has first.
        normalise: Divide each image's features by their L2 norm.
        dtype: Type of the features in the file.
        batch: Number of images that are run at once; 8 by default.
        workers: Number of images that are decoded, and of files that run, at the same time, with one thread each. One for each
            core by default.
        column: The column of paths in tables; by default the only one, or `path`, `file_name`, `filename`, `file` or `image`.
        preprocess: How images are prepared, as in `load`, in place of what the file states.
        fast_crop: Resize only what the crop keeps, as in `predict`, which takes less time.
        force: Replace existing files, and parts of an earlier run with other options, another model or other images.
        time_limit: Seconds that one batch may take, by default 15, and more by the size of the file.
        memory_limit: GB that each worker's child process may use, by default as in `open`.
        engine: `local`: the cores of this machine. `ray`: the actors of a Ray cluster, which needs `ray[data]`, and a file
            system on which images, artifact and result have the same paths everywhere. The result is the same.
        address: The address of the Ray cluster, such as `10.0.0.1:6379`; by default the one in `RAY_ADDRESS`, or a new one on
            this machine.

    Raises:
        InputError: There are no images, the file does not have the output, or there are parts of another run.
        RefusedContent: The file cannot be read, or none of the images can.
        CannotWrite: A file exists, or cannot be written; after a full disk, the same call goes on.
        Stopped: The file reached a limit, or onnxruntime crashed, or Ray failed.
        MissingDependency: The result needs pyarrow, or the engine Ray, which is not installed.
    """
    out = Path(out)
    if dtype not in TYPES:
        raise InputError(f"unknown dtype {shown(dtype)}; choose from {', '.join(TYPES)}")
    run_on = engine_of(engine, address, workers)
    files = FeatureFile.of(out) if out.suffix else FeatureFolder.of(out, run_on)
    images = [images] if isinstance(images, str | os.PathLike) else list(images)
    _check_sources(images, files)
    if not Partial.of(out).exists():
        files.check(force=force)
    options = worker_options(
        artifact, (output,), preprocess=preprocess, batch=batch, fast_crop=fast_crop, time_limit=time_limit,
        memory_limit=memory_limit,
    )  # fmt: skip
    job = EmbedJob(options, normalise=normalise, dtype=dtype)
    run = job.document()
    about = describe(artifact)
    if about.config is not None and about.config.random_text:
        notice(f"{about.config.name} has {about.config.random_text}: its features mean nothing")

    def prepare(folder: Path) -> dict[str, Any]:
        count, digest = store_list(folder / IMAGES, list_images(images, column=column))
        return {**run, "images": {"count": count, "sha256": digest}}

    with closing(run_on), partial_result(out, prepare, force=force) as partial:
        if not partial.is_put():
            files.check(force=force)
        total = partial.run()["images"]["count"]
        _compute(partial, job, run_on)
        parts = Parts.of(partial, range(-(-total // chunk_size(total))))
        if not parts.rows:
            (_, reason), *_ = next(iter(parts)).failures
            partial.discard()
            raise RefusedContent(f"none of {total} images can be read; the first: {reason}", where=out)
        if not partial.is_put():
            files.save(Content(parts, dtype, partial.run()))
        partial.discard()
    return Embeddings(
        out, parts.rows, parts.width, dtype, job.options.features[0].name, normalise, parts.failed,
        files.failures if parts.failed else None, files.table,
    )  # fmt: skip


def _check_sources(sources: Sequence[str | os.PathLike[str]], files: FeatureFile | FeatureFolder) -> None:
    """Raise InputError if a file to write is one of those that list the images."""
    written = {path.absolute() for path in files.files}
    for source in sources:
        if Path(source).absolute() in written:
            raise InputError("would be replaced by the result: choose another name for that", where=source)


def _compute(partial: Partial, job: EmbedJob, engine: Engine) -> None:
    """Compute the missing parts."""
    total: int = partial.run()["images"]["count"]
    size, done = chunk_size(total), partial.done()
    if done:
        notice(f"{partial.folder}: resuming after {min(len(done) * size, total):,} of {total:,} images")
    folder = partial.folder.absolute()
    missing = (piece for piece in pieces(folder / IMAGES, size) if piece.number not in done)
    with step("embedding", total, "images") as progress:
        progress.advance(min(len(done) * size, total))
        with closing(engine(missing, PartWriters(job.open, folder))) as counts:
            for count in counts:
                progress.advance(count)


@dataclass(frozen=True)
class EmbedJob:
    """What is computed; it can be sent to another process or machine.

    Attributes:
        options: The options of a worker with one feature.
        normalise: Whether features are divided by their L2 norm.
        dtype: The type that they are rounded to.
    """

    options: WorkerOptions
    normalise: bool = False
    dtype: str = "float32"

    def open(self) -> EmbedWorker:
        """Open a worker."""
        return EmbedWorker(self)

    def document(self) -> dict[str, Any]:
        """Return what decides the values, for the metadata of files, and to compare runs."""
        options = self.options
        about = describe(options.artifact)
        files = [about.path, *(about.path.parent / name for name in external_names(about.path))]
        return {
            "artifact": {"name": about.path.name, "sha256": [sha256_of(file) for file in files]},
            "model": None if about.config is None else about.config.name,
            "output": options.features[0].name,
            "normalised": self.normalise,
            "dtype": self.dtype,
            "batch": options.batch,
            "fast_crop": options.fast_crop,
            "preprocess": options.preprocess.model_dump(mode="json"),
            "versions": versions(),
        }


class EmbedWorker:
    """A worker whose features are normalised and rounded."""

    def __init__(self, job: EmbedJob) -> None:
        self.job, self.worker = job, ImageWorker(job.options)

    def __call__(self, chunk: Chunk) -> Rows:
        import numpy as np

        rows = self.worker(chunk)
        ((name, x),) = rows.values.items()
        if x.ndim != 2:  # the file does not declare the shape
            cause = f"output '{name}' is not one vector for each image: its shape is {list(x.shape)}"
            raise RefusedContent(cause, where=self.job.options.artifact)
        if self.job.normalise and x.size:
            norms = np.linalg.norm(x.astype("<f8"), axis=1, keepdims=True)
            x = x / np.where(norms > 0, norms, 1)
        with np.errstate(over="ignore"):
            x = x.astype(np.dtype(self.job.dtype).newbyteorder("<"))
        fits = np.asarray(np.isfinite(x).all(axis=1))
        if fits.all():
            return replace(rows, values={name: x})
        cause = f"its features are too large for {self.job.dtype}"
        too_large = [(image.name, cause) for image, fit in zip(rows.images, fits, strict=True) if not fit]
        images = tuple(image for image, fit in zip(rows.images, fits, strict=True) if fit)
        return Rows(rows.number, images, rows.sizes[fits], {name: x[fits]}, (*rows.failures, *too_large))

    def close(self) -> None:
        self.worker.close()
