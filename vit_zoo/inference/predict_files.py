"""Classification of many image files by several workers, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.formats.classifier import PROBABILITIES, class_config
from vit_zoo.formats.features import feature_of
from vit_zoo.inference.predict import described
from vit_zoo.inference.preparation import free_size, options_of
from vit_zoo.inference.worker import chunk_size, chunks
from vit_zoo.model.classification import TOP, Prediction, Scoring
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.files.image_inputs import ImageInput
    from vit_zoo.files.image_list import ImageRef
    from vit_zoo.formats.features import File
    from vit_zoo.inference.engine import Engine
    from vit_zoo.inference.worker import WorkerOptions
    from vit_zoo.model.batches import Failed


@dataclass(frozen=True)
class FilePredictor:
    """An exported classifier that workers open.

    Attributes:
        options: The options of the workers.
        scoring: How their results become predictions.
    """

    options: WorkerOptions
    scoring: Scoring

    @classmethod
    def of(
        cls,
        file: File,
        facts: Mapping[str, Any],
        *,
        top: int | None = None,
        default_top: int = TOP,
        **settings: Any,
    ) -> Self:
        """Return the predictor of a file, opened or not. Raises InputError.

        `facts` and `top` are as in `vit_zoo.predict`, and `settings` as in `options_of`.
        """
        output, config = class_config(
            file, lambda config: described(file, config, facts), free_size(file, facts.get("preprocess"))
        )
        scoring = Scoring.of(config, top, default_top, where=file.path, activated=output == PROBABILITIES)
        return cls(options_of(file, [feature_of(file, output)], config.known_preprocess(), **settings), scoring)

    def predictions(self, images: Sequence[ImageInput], engine: Engine, failed: Failed | None = None) -> list[Prediction]:
        """Return a prediction for each image file, in their order.

        An image that cannot be read is left out and passed to `failed`; without that, its error is raised. Raises InputError for
        an image in memory, and errors as `engine`.
        """
        done: list[Prediction] = []
        refs = list(_files(images))
        size = chunk_size(len(refs))
        results = engine(chunks(refs, size), self.options.open)
        with step("predicting", len(refs), "images") as progress, closing(results):
            for rows in results:
                for name, reason in rows.failures:
                    error = RefusedContent(reason, where=name)
                    if failed is None:
                        raise error
                    failed(name, error)
                (values,) = rows.values.values()
                done += [self.scoring.prediction(image.name, row) for image, row in zip(rows.images, values, strict=True)]
                progress.advance(len(rows.images) + len(rows.failures))
        return done


def _files(images: Sequence[ImageInput]) -> Iterator[ImageRef]:
    for image in images:
        if image.file is None:
            raise InputError("workers and engine apply to image files, and this image is in memory", where=image.name)
        yield image.file
