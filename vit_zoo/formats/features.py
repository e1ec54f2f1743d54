"""Features in exported files: which outputs give one vector for each image, and how to take it from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vit_zoo.errors import InputError, Option, RefusedContent
from vit_zoo.files.image_inputs import image_inputs
from vit_zoo.model.outputs import CLASSES, EMBEDDING

if TYPE_CHECKING:
    from vit_zoo.files.image_inputs import Images
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.formats.declared import Declared
    from vit_zoo.model.spec import ViTSpec

    File: TypeAlias = Artifact | Declared

POOLED, TOKENS = "pooler_output", "last_hidden_state"
CLASS, DIST, PATCHES, ALL = "class_token", "dist_token", "patch_mean", "token_mean"
PARTS = (CLASS, DIST, PATCHES, ALL)
OUTPUT = Option("output", "NAME")


@dataclass(frozen=True)
class Feature:
    """Values that are taken from an output of a file.

    Attributes:
        output: The name of the output.
        part: What is taken from an output of tokens [batch, tokens, width]: `class_token`, `dist_token`, `patch_mean` (the mean
            of the patches) or `token_mean`; None for an output as it is.
        start: The first of these tokens.
        stop: The end of these tokens; None for all that follow.
    """

    output: str
    part: str | None = None
    start: int = 0
    stop: int | None = None

    @property
    def name(self) -> str:
        """The name that `--output` takes."""
        return self.output if self.part is None else f"{self.output}:{self.part}"

    def of(self, values: Mapping[str, Array]) -> Array:
        """Return the values of a batch, float32 [batch, ...]. Raises RefusedContent for an output of another shape."""
        value = values[self.output]
        if value.dtype.kind != "f":
            raise RefusedContent(f"output '{self.output}': expected floats, got {value.dtype}")
        if self.part is None:
            return value.astype("<f4", copy=False)
        tokens = value[:, self.start : self.stop] if value.ndim == 3 else value
        if value.ndim != 3 or not tokens.shape[1]:
            raise RefusedContent(f"output '{self.output}': expected tokens [batch, tokens, width], got {list(value.shape)}")
        return tokens.mean(axis=1, dtype="<f8").astype("<f4")  # type: ignore[no-any-return]


def feature_of(artifact: File, wanted: str | None = None) -> Feature:
    """Return the feature of a file that a user names.

    Args:
        artifact: The file, opened or not.
        wanted: The name of an output [batch, width]; or one of `class_token`, `dist_token`, `patch_mean` and `token_mean`, which
            are taken from `last_hidden_state`, or from another output of tokens, as in `block.5:patch_mean`. By default
            `image_embeds`, `pooler_output`, or the class token of `last_hidden_state` (the mean of the patches if the model
            has no class token), whichever the file has first.

    Raises:
        InputError: The file does not have it.
    """
    if wanted is None:
        return _default(artifact)
    output, _, part = (TOKENS, ":", wanted) if wanted in PARTS else wanted.partition(":")
    shapes = artifact.output_shapes
    if output not in shapes:
        raise _missing(artifact, f"has no output '{output}'")
    rank = len(shapes[output]) or None  # as far as it is known
    if part:
        if part not in PARTS:
            raise InputError(f"unknown part '{part}' of output '{output}'; choose from {', '.join(PARTS)}", where=artifact.path)
        if rank not in (3, None):
            raise _missing(artifact, f"output '{output}' has no tokens")
        return _part(artifact, output, part)
    if rank not in (2, None):
        parts = f"; of tokens, '{output}:{CLASS}' or '{output}:{PATCHES}' is one" if rank == 3 else ""
        raise _missing(artifact, f"output '{output}' is not one vector for each image{parts}")
    return Feature(output)


def embedded_images(artifact: Artifact, images: Images, output: str | None = None) -> Array:
    """Return one feature for each image, float32 [images, width]. Arguments and errors are as in `Artifact.embed`."""
    import numpy as np

    from vit_zoo.model.batches import BATCH, prepared_batches

    feature = feature_of(artifact, output)
    config = artifact.about.config
    if config is None:
        hint = "vit_zoo.embed takes preprocess, which states it"
        raise InputError("states no preprocessing of images", where=artifact.path, hint=hint)
    preprocess, inside = config.known_preprocess(), "include" in artifact.about.export
    rows = []
    prepare, size = (preprocess.whole, 1) if inside else (preprocess, BATCH)
    for batch in prepared_batches(image_inputs(images), prepare, size):
        values = feature.of(artifact.run_any(batch.pixels))
        if not np.isfinite(values).all():
            raise RefusedContent("the outputs are not finite", where=artifact.path)
        rows.append(values)
    return np.concatenate(rows)


def _default(artifact: File) -> Feature:
    config = artifact.about.config
    for name in (EMBEDDING, POOLED):
        if name in artifact.outputs:
            return Feature(name)
    if TOKENS in artifact.outputs and config is not None:
        return _part(artifact, TOKENS, CLASS if config.spec.class_token else PATCHES)
    shapes = artifact.output_shapes
    if config is None and len(shapes) == 1:
        (name,) = shapes
        if len(shapes[name]) == 2 and name not in CLASSES:
            return Feature(name)
    raise _missing(artifact, f"has neither '{EMBEDDING}' nor '{POOLED}', so the features must be named")


def _part(artifact: File, output: str, part: str) -> Feature:
    """Return a part of an output of tokens: class token, distillation token and registers come before the patches."""
    config = artifact.about.config
    if part == ALL:
        return Feature(output, part)
    if config is None:  # another tool's file does not state what its tokens are
        if part == CLASS:
            return Feature(output, part, 0, 1)
        hint = f"'{output}:{CLASS}' is the first token, '{output}:{ALL}' the mean of all"
        raise InputError("the file does not state which tokens are the patches", where=artifact.path, hint=hint)
    first, stop = _tokens(config.spec, part)
    if first == stop:
        raise InputError(f"the model has no {part.replace('_', ' ')}", where=artifact.path)
    return Feature(output, part, first, stop)


def _tokens(spec: ViTSpec, part: str) -> tuple[int, int | None]:
    """Return the first of the tokens of a part, and their end."""
    classes = int(spec.class_token)
    if part == CLASS:
        return 0, classes
    if part == DIST:
        return classes, classes + int(spec.dist_token)
    return spec.prefix_tokens, None


def _missing(artifact: File, cause: str) -> InputError:
    """Return the error about features that a file does not have, with what it has."""
    from vit_zoo.formats.artifact import axes_text

    outputs = ", ".join(f"{name} {axes_text(axes)}".rstrip() for name, axes in artifact.output_shapes.items())
    hint = f"it has {outputs}; {OUTPUT} names one"
    if artifact.about.config is not None:
        hint += f", and an export with --outputs {POOLED} or {TOKENS} has features"
    return InputError(cause, where=artifact.path, hint=hint, options=[OUTPUT])
