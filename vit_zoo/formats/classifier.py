"""Opened files as classifiers: the output that has the classes, and the config, also of other tools' files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.model.classification import Classifier

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.formats.features import File
    from vit_zoo.model.config import ModelConfig

    Describe: TypeAlias = Callable[[ModelConfig], ModelConfig]

LOGITS, PROBABILITIES = "logits", "probabilities"


def artifact_classifier(
    artifact: Artifact,
    describe: Describe = lambda config: config,
    size: tuple[int, int] | None = None,
) -> Classifier:
    """Return an opened file as a classifier. Arguments and errors are as in `class_config`."""
    output, config = class_config(artifact, describe, size)
    return Classifier(
        config=config,
        run=lambda images: _rows(artifact, images, output),
        where=artifact.path,
        activated=output == PROBABILITIES,
        prepares="include" in artifact.about.export,
    )


def class_config(
    artifact: File, describe: Describe = lambda config: config, size: tuple[int, int] | None = None
) -> tuple[str, ModelConfig]:
    """Return the name of the output that has the classes, and the config.

    `describe` adds what the user states to the file's config; `size` is the size of the images for another tool's file that takes
    any. Raises InputError for a file whose outputs are no classes.
    """
    own = artifact.about.config
    output = class_output(artifact)
    if output is None:
        raise _no_classes(artifact)
    config = describe(_config_of(artifact, output, size) if own is None else own)
    if output == PROBABILITIES and own is not None and config.problem_type != own.problem_type:
        cause = "cannot set problem_type: the file computes the softmax already; export the model again"
        raise InputError(cause, where=artifact.path)
    return output, config


def _rows(artifact: Artifact, images: Array, output: str) -> Array:
    """Return one row of outputs for each image. Raises RefusedContent if the file computes anything else than it declares."""
    values = artifact.run_any(images)[output]
    if values.dtype.kind != "f" or values.ndim != 2 or len(values) != len(images):
        expected = f"expected a row of floats for each of {len(images)} images"
        raise RefusedContent(f"output '{output}': {expected}, got {values.dtype} {list(values.shape)}", where=artifact.path)
    return values


def class_output(artifact: File) -> str | None:
    """Return the name of the output that has the classes, if there is one. In another tool's file, a single one has any name."""
    config, names = artifact.about.config, artifact.outputs
    named = next((name for name in (LOGITS, PROBABILITIES) if name in names), None)
    if named is not None and (config is None or config.classes):
        return named
    shapes = artifact.output_shapes
    if config is None and len(names) == 1 and len(shapes[names[0]]) == 2:
        return names[0]
    return None


def _no_classes(artifact: File) -> InputError:
    """Return the error about a file whose outputs are no classes."""
    config, shapes = artifact.about.config, artifact.output_shapes
    described = ", ".join(f"{name} [{', '.join(map(str, shapes[name]))}]" for name in artifact.outputs)
    hint = f"in Python, vit_zoo.open('{artifact.path.name}').run(images) returns them for prepared images"
    if config is not None and config.classes:
        hint += f"; an export with the output '{LOGITS}' classifies"
    return InputError(f"gives features, not classes: {described}", where=artifact.path, hint=hint)


def _config_of(artifact: File, output: str, size: tuple[int, int] | None) -> ModelConfig:
    """Return what another tool's file shows of its config: the sizes of its input and of its output.

    Its spec is that of a model whose other sizes are 1, because nothing here reads them.
    """
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import article_spec

    axes, shape = artifact.input_shape, artifact.output_shapes[output]
    classes = shape[-1] if shape else None
    sides = [side if isinstance(side, int) else given for side, given in zip(axes[2:], size or (None, None), strict=False)]
    if artifact.input_type not in ("float32", "float16") or len(axes) != 4 or None in sides or not isinstance(axes[1], int):
        taken = f"{artifact.input_type} [{', '.join(map(str, axes))}]"
        wanted = "float32 [batch, channels, height, width]"
        raise InputError(f"expected an input {wanted}, got {taken}", where=artifact.path)
    if not isinstance(classes, int):
        raise InputError(f"the number of classes is not stated: the output '{output}' has a free last axis", where=artifact.path)
    try:
        spec = article_spec(
            image_size=tuple(sides), patch_size=tuple(sides), channels=axes[1], num_classes=classes, pool="mean", dim=1, depth=1,
            heads=1, dim_head=1, mlp_dim=1, dropout=0.0, emb_dropout=0.0,
        )  # fmt: skip
    except InputError as error:
        raise RefusedContent(f"declares sizes that no classifier has: {error.message}", where=artifact.path) from None
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in artifact.path.stem).lstrip("_.-")[:96]
    return ModelConfig(name=name or "model", spec=spec)
