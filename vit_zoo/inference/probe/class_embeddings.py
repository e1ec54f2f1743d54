"""Classes that are embeddings of texts, computed by another model (a CLIP text encoder), and the head that they make."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, RefusedContent, notice, shown
from vit_zoo.files import SafetensorsFile, Stored
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.sniff import sniff
from vit_zoo.files.stored import as_float
from vit_zoo.loading.stated import stated_labels

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.loading.checkpoint import Checkpoint, ModelLike

    ClassesLike = str | os.PathLike[str] | Mapping[str, Any]

SCALE, BIAS = Option("logit_scale", "100"), Option("logit_bias", "-10")
SMALLEST_USUAL = 10  # factors that models are trained to are larger, and logarithms of factors smaller
MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class ClassEmbeddings:
    """Embeddings of classes.

    Attributes:
        labels: The names of the classes.
        vectors: float64 [classes, width], of any length.
        logit_scale: The factor of the cosines; None if it is not stated.
        logit_bias: The number that is added to the logits; None if it is not stated.
    """

    labels: tuple[str, ...]
    vectors: Array
    logit_scale: float | None = None
    logit_bias: float | None = None


def read_class_embeddings(source: ClassesLike) -> ClassEmbeddings:
    """Read the embeddings of classes.

    Args:
        source: An .npz file with the arrays `embeddings`, floats [classes, width], and `labels`, text [classes]; `logit_scale`
            and `logit_bias` are optional numbers. Or a .safetensors file with the tensor `embeddings` and, in its metadata,
            `labels`, a JSON list, and perhaps `logit_scale` and `logit_bias`. Or a mapping with the same names.

    Raises:
        InputError: Something is missing, or the numbers of labels and embeddings differ.
        RefusedContent: The file cannot be read, or values are not finite.
    """
    if isinstance(source, Mapping):
        return _checked(dict(source), "classes")
    path = Path(source)
    kind = sniff(path)
    if kind == "npz":
        from vit_zoo.files.npz import read_npz

        return _checked({name: _values(stored, name, path) for name, stored in read_npz(path).items() if name in NAMES}, path)
    if kind == "safetensors":
        opened = SafetensorsFile(path)
        tensors = {name: _values(stored, name, path) for name, stored in opened.tensors.items() if name in NAMES}
        return _checked({**_metadata(opened.metadata, path), **tensors}, path)
    raise InputError("expected embeddings of classes as .npz or .safetensors", where=path)


NAMES = ("embeddings", "labels", "logit_scale", "logit_bias")


def _values(stored: Stored, name: str, path: Path) -> Any:
    """Return the values of an array in a file: floats, or a list of texts."""
    import numpy as np

    values = stored.array()
    if values.dtype.kind != "U":
        return as_float(stored.dtype, values)
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    characters = native.reshape(-1).view(np.uint32)
    if ((characters > 0x10FFFF) | ((characters >= 0xD800) & (characters < 0xE000))).any():  # NumPy does not check them
        raise RefusedContent(f"{name!r} is not valid text", where=path)
    return native.tolist()


def _metadata(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the labels and numbers in the metadata of a safetensors file, which are JSON."""
    stated = {}
    for name in NAMES[1:]:
        if name in metadata:
            try:
                stated[name] = json.loads(metadata[name])
            except (ValueError, RecursionError):
                raise InputError(f"metadata: {name} is not JSON: {shown(metadata[name])}", where=path) from None
    return stated


def _checked(stated: Mapping[str, Any], where: object) -> ClassEmbeddings:
    import numpy as np

    for name in stated:
        if name not in NAMES:
            raise InputError(f"unknown array {name!r}; expected {', '.join(NAMES)}", where=where)
    for name in NAMES[:2]:
        if stated.get(name) is None:
            raise InputError(f"has no {name!r}: expected 'embeddings' [classes, width] and 'labels' [classes]", where=where)
    embeddings = stated["embeddings"]
    embeddings = embeddings.detach().cpu().float().numpy() if hasattr(embeddings, "detach") else embeddings
    try:
        with np.errstate(invalid="ignore"):  # values that are not finite are refused below
            vectors = np.asarray(embeddings, "<f8")
    except (TypeError, ValueError):
        raise InputError("'embeddings' must be numbers [classes, width]", where=where) from None
    if vectors.ndim != 2 or not vectors.size or len(vectors) > MAX_CLASSES:
        raise InputError(f"'embeddings' must be [classes, width], got {list(vectors.shape)}", where=where)
    labels = stated["labels"]
    labels = labels.tolist() if hasattr(labels, "tolist") else labels
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise InputError("'labels' must be text [classes]", where=where)
    if len(labels) != len(vectors):
        raise InputError(f"{len(labels)} labels for {len(vectors)} embeddings", where=where)
    bad = ~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1)
    if bad.any():
        raise RefusedContent(f"the embedding of {shown(labels[int(bad.argmax())])} is zero or not finite", where=where)
    numbers = [_number(name, stated.get(name), where) for name in NAMES[2:]]
    return ClassEmbeddings(stated_labels(labels), vectors, *numbers)


def _number(name: str, value: Any, where: object = None) -> float | None:
    """Return a number that is stated, as an array or not; None if it is not."""
    import numpy as np

    if value is None:
        return None
    try:
        number = float(np.asarray(value).reshape(()).item() if np.size(value) == 1 else value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, got {shown(value)}", where=where) from None
    if not math.isfinite(number) or (name == "logit_scale" and number <= 0):
        raise InputError(f"{name} must be finite{' and above 0' if name == 'logit_scale' else ''}, got {number:g}", where=where)
    return number


def with_numbers(
    classes: ClassEmbeddings, source: Checkpoint, model: ModelLike, *, logit_scale: float | None, logit_bias: float | None
) -> ClassEmbeddings:
    """Return the embeddings with the scale and the bias that are stated, or else in their file, or else in the checkpoint.

    Raises InputError if nothing states the scale.
    """
    scale, bias = _number("logit_scale", logit_scale), _number("logit_bias", logit_bias)
    scale = classes.logit_scale if scale is None else scale
    bias = classes.logit_bias if bias is None else bias
    if scale is None and (logarithm := _in_checkpoint(source, model, "logit_scale")) is not None:
        if not -50 < logarithm < 50:
            raise RefusedContent(f"its logit_scale is exp({logarithm:g})", where=source.path)
        scale = math.exp(logarithm)
    elif scale is not None and scale < SMALLEST_USUAL:
        notice(
            f"logit_scale = {scale:g} is the factor itself; checkpoints hold its logarithm, which would be {math.exp(scale):.4g}"
        )
    if scale is None:
        hint = f"state it: {SCALE} is that of OpenAI's CLIP"
        cause = "neither the classes nor the checkpoint states logit_scale, the factor of the cosines"
        raise InputError(cause, where=source.config.name, hint=hint, options=[SCALE])
    bias = _in_checkpoint(source, model, "logit_bias") if bias is None else bias
    return replace(classes, logit_scale=scale, logit_bias=bias)


def _in_checkpoint(source: Checkpoint, model: ModelLike, name: str) -> float | None:
    """Return a parameter of the model with its text encoder, which is not part of the image encoder; None if there is none."""
    names = [key for key in source.unwanted if key.rpartition(".")[2] == name]
    if len(names) != 1:
        return None
    if source.path is not None:
        tensors = read_checkpoint(source.path)
    else:
        from vit_zoo.files.pickles import tensors_of

        tensors = tensors_of(model.state_dict(), where=type(model).__name__)  # type: ignore[union-attr]
    keys = [key for key in tensors if key == names[0] or key.endswith(f".{names[0]}")]
    return (
        _number("parameter", as_float(tensors[keys[0]].dtype, tensors[keys[0]].array()), source.path) if len(keys) == 1 else None
    )


def check_model(source: Checkpoint, classes: ClassEmbeddings) -> None:
    """Raise InputError for a model without embeddings of images, or with those of another width."""
    config, spec = source.config, source.config.spec
    if config.is_embedding and (spec.head_bias or config.random_part == "head"):
        what = "has a bias, which a head of text embeddings cannot keep" if spec.head_bias else "has random weights"
        raise InputError(f"the projection of its embedding {what}", where=config.name)
    if not config.is_embedding and not spec.cosine_head and (config.classes or spec.pool == "none" or spec.dist_token):
        cause = f"has {config.classes:,} classes" if config.classes else "pools no embedding of an image"
        hint = "text embeddings need the image encoder of a model that was trained with texts: CLIP, SigLIP"
        raise InputError(f"{cause}, and no embedding of images to compare with those of texts", where=config.name, hint=hint)
    width = spec.num_classes if config.is_embedding else spec.projection or spec.feature_width
    if classes.vectors.shape[1] != width:
        cause = f"the embeddings of the classes have width {classes.vectors.shape[1]:,}, those of its images {width:,}"
        raise InputError(cause, where=config.name)


def with_class_embeddings(source: Checkpoint, classes: ClassEmbeddings) -> Checkpoint:
    """Return a model whose logits are logit_scale * cosine(image embedding, class embedding) + logit_bias.

    Its head holds the normalised embeddings, multiplied by the scale. With a bias (SigLIP), each class has a probability of its
    own, the sigmoid of its logit. `check_model` has passed, and the scale is known. Raises InputError for a softmax of one class.
    """
    import numpy as np

    assert classes.logit_scale is not None
    config, spec, tensors = source.config, source.config.spec, dict(source.tensors)
    biased = classes.logit_bias is not None
    if len(classes.labels) == 1 and not biased:
        raise InputError("one class only, whose softmax is always 1; name others too", where=config.name)
    projection = spec.projection
    if config.is_embedding:  # the head projects
        tensors["projection.weight"], projection = tensors.pop("head.weight"), spec.num_classes
    spec = spec.replace(projection=projection, cosine_head=True, num_classes=len(classes.labels), head_bias=biased)
    unit = classes.vectors / np.linalg.norm(classes.vectors, axis=1, keepdims=True)
    tensors["head.weight"] = in_memory(classes.logit_scale * unit)
    if biased:
        tensors["head.bias"] = in_memory(np.full(len(unit), classes.logit_bias))
    problem_type = "multi_label_classification" if biased else None
    origin = f"{config.source or config.name}; its head: embeddings of texts"
    changed = config.replace(spec=spec, labels=classes.labels, problem_type=problem_type, accuracy=None, source=origin)
    return replace(source, config=changed, tensors={name: tensors[name] for name in spec.shapes()}, digest=None, path=None)


def in_memory(values: Array) -> Stored:
    """Return values as a tensor in float32."""
    return Stored("F32", values.shape, partial(values.astype, "<f4"))
