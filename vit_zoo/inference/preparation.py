"""What a worker needs to run a file of any tool: the features that it has, and how images are prepared for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, Option, RefusedContent
from vit_zoo.formats.declared import declared
from vit_zoo.formats.features import Feature, feature_of
from vit_zoo.formats.limits import Limits
from vit_zoo.inference.worker import WorkerOptions
from vit_zoo.loading.stated import Description, stated_preprocess
from vit_zoo.model.batches import BATCH
from vit_zoo.model.classification import preparation
from vit_zoo.model.config import PREPROCESS, ModelConfig
from vit_zoo.model.spec import article_spec

if TYPE_CHECKING:
    from vit_zoo.formats.features import File
    from vit_zoo.loading.stated import PreprocessLike
    from vit_zoo.model.preprocess import Preprocess

SIZE = Option("preprocess", "{'extends': 'imagenet', 'size': 224}", "--preprocess imagenet --size 224")


def worker_options(
    artifact: str | os.PathLike[str],
    features: Sequence[str | None] = (None,),
    *,
    preprocess: PreprocessLike | None = None,
    batch: int | None = None,
    fast_crop: bool = False,
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> WorkerOptions:
    """Read what a file declares, and return the options of its workers.

    Args:
        artifact: An exported ONNX file.
        features: The values to return, as `formats.features.feature_of` takes them.
        preprocess: How images are prepared, as in `load`; other tools' files do not state it.
        batch: The number of images that are run at once, 8 by default; of a file with a fixed batch, that.
        fast_crop: Resize only what the crop keeps, as in `vit_zoo.predict`.
        time_limit: Seconds that one batch may take.
        memory_limit: GB that the child process may use.

    Raises:
        InputError: The file does not have a feature, or its preprocessing is not known or does not apply.
        RefusedContent: The file cannot be read.
    """
    file = declared(artifact)
    taken = [feature_of(file, name) for name in features]
    how = preprocess_of(file, preprocess)
    return options_of(
        file, taken, how, batch=batch, fast_crop=fast_crop, time_limit=time_limit, memory_limit=memory_limit
    )  # fmt: skip


def options_of(
    file: File,
    features: Sequence[Feature],
    preprocess: Preprocess,
    *,
    batch: int | None = None,
    fast_crop: bool = False,
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> WorkerOptions:
    """Return the options of the workers of a file. Arguments and errors are as in `worker_options`."""
    Limits.of(time_limit, memory_limit)
    if batch is not None and batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    inside = _inside(file)
    preparation(preprocess, inside=inside, fast_crop=fast_crop, where=file.path)
    axes = file.input_shape
    fixed = axes[0] if axes and isinstance(axes[0], int) else None
    if fixed is not None and batch not in (None, fixed):
        raise InputError(f"takes batches of {fixed}, not of {batch}", where=file.path)
    return WorkerOptions(
        artifact=file.path,
        features=tuple(features),
        preprocess=preprocess,
        inside=inside,
        batch=fixed or batch or BATCH,
        fixed_batch=fixed is not None,
        fast_crop=fast_crop,
        time_limit=time_limit,
        memory_limit=memory_limit,
    )


def preprocess_of(artifact: File, stated: PreprocessLike | None = None) -> Preprocess:
    """Return how images are prepared for a file.

    Args:
        artifact: The file, opened or not.
        stated: What the user states, which overrides the file's own preprocessing.

    Raises:
        InputError: It is not known, does not fit the file, or does not apply, since the file prepares images itself.
    """
    config = artifact.about.config
    if config is not None and stated is not None and _inside(artifact):
        raise InputError("the file prepares images itself; preprocess does not apply", where=artifact.path)
    if config is None:
        if stated is None:
            hint = f"state it: {PREPROCESS}"
            raise InputError("states no preprocessing of images", where=artifact.path, hint=hint, options=[PREPROCESS])
        config = config_of_input(artifact, stated)
    return Description(preprocess=stated).of(config).known_preprocess()


def config_of_input(artifact: File, stated: PreprocessLike) -> ModelConfig:
    """Return the config of another tool's file as far as its input shows it; the sizes of free axes are those that are stated.

    Its spec is that of a model whose other sizes are 1, because nothing here reads them. Raises InputError.
    """
    axes = artifact.input_shape
    if artifact.input_type not in ("float32", "float16") or len(axes) != 4:
        taken = f"{artifact.input_type} [{', '.join(map(str, axes))}]"
        raise InputError(f"expected an input float32 [batch, channels, height, width], got {taken}", where=artifact.path)
    _, channels, height, width = axes
    channels = channels if isinstance(channels, int) else 3
    if not isinstance(height, int) or not isinstance(width, int):
        size = stated_size(artifact, stated)
        height, width = (axis if isinstance(axis, int) else side for axis, side in zip((height, width), size, strict=True))
    return _config(artifact, channels, (height, width))


def free_size(artifact: File, stated: PreprocessLike | None) -> tuple[int, int] | None:
    """Return the size that the user states of the images for another tool's file that takes any; None if it does not apply."""
    axes = artifact.input_shape
    free = len(axes) == 4 and not all(isinstance(axis, int) for axis in axes[2:])
    if artifact.about.config is not None or not free:
        return None
    return stated_size(artifact, {} if stated is None else stated)


def stated_size(artifact: File, stated: PreprocessLike) -> tuple[int, int]:
    """Return the size of the images that the user states. Raises InputError if the preprocessing does not state it."""
    states = "size" in stated if isinstance(stated, Mapping) else not isinstance(stated, str | os.PathLike)
    if states or Path(str(stated)).suffix == ".json":
        return stated_preprocess(stated, _config(artifact, 3, (224, 224))).size
    cause = "takes images of any height and width, so their size must be stated"
    raise InputError(cause, where=artifact.path, hint=str(SIZE), options=[SIZE])


def _config(artifact: File, channels: int, size: tuple[int, int]) -> ModelConfig:
    try:
        spec = article_spec(
            image_size=size, patch_size=size, channels=channels, num_classes=0, pool="mean", dim=1, depth=1, heads=1, dim_head=1,
            mlp_dim=1, dropout=0.0, emb_dropout=0.0,
        )  # fmt: skip
    except InputError as error:
        raise RefusedContent(f"declares sizes that no model has: {error.message}", where=artifact.path) from None
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in artifact.path.stem).lstrip("_.-")[:96]
    return ModelConfig(name=name or "model", spec=spec)


def _inside(artifact: File) -> bool:
    """Return whether the file prepares images itself."""
    return "include" in artifact.about.export
