"""Batches of images, prepared for a model, which are read as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent, VitzooError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from vit_zoo.files.image_inputs import ImageInput

    Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8
Failed = Callable[[str, VitzooError], None]  # receives the name of an image that cannot be read, and the reason


@dataclass(frozen=True)
class Batch:
    """Images for one run of a model. `pixels` is the model's input [batch, ...]."""

    names: tuple[str, ...]
    pixels: Array


def prepared_batches(
    images: Iterable[ImageInput],
    prepare: Callable[[Image.Image], Array],
    size: int = BATCH,
    failed: Failed | None = None,
) -> Iterator[Batch]:
    """Yield batches of `size` images; the last one may have fewer.

    An image that cannot be read is left out and passed to `failed`; without that, its error is raised.
    """
    names: list[str] = []
    pixels: list[Array] = []
    for image in images:
        try:
            pixels.append(prepare(image.read()))
        except (InputError, RefusedContent) as error:
            named = error if error.where else type(error)(error.message, where=image.name, hint=error.hint)
            if failed is None:
                raise named from None
            failed(image.name, named)
            continue
        names.append(image.name)
        if len(names) == size:
            yield _batch(names, pixels)
            names, pixels = [], []
    if names:
        yield _batch(names, pixels)


def _batch(names: list[str], pixels: list[Array]) -> Batch:
    import numpy as np

    return Batch(tuple(names), np.stack(pixels))
