"""The public functions, one for each step: create, load, save, convert, export, verify, publish and pull a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_zoo.errors import InputError
from vit_zoo.loading.checkpoint import ModelLike
from vit_zoo.loading.facts import parsed, patterns
from vit_zoo.loading.load import RANDOM, check_content, find_weights, model_of, random_model, reduced, save_model
from vit_zoo.loading.source import find_architecture
from vit_zoo.loading.stated import Description

if TYPE_CHECKING:
    import torch

    from vit_zoo.exporters.export_file import Export, Note
    from vit_zoo.exporters.options import Dynamic, Placement
    from vit_zoo.graph.options import Operators, Precision
    from vit_zoo.loading.convert import Converted
    from vit_zoo.loading.stated import Labels, PreprocessLike
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.report import Effort, ParityReport
    from vit_zoo.publishing.publish import Published
    from vit_zoo.publishing.pull import Pulled


def create(
    name: str | os.PathLike[str],
    *,
    seed: int = 0,
    device: Any = None,
    dtype: torch.dtype | None = None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **overrides: Any,
) -> ViT:
    """Create a model with seeded random weights.

    Args:
        name: A registry name, or a config file (`config.json` or TOML).
        seed: Seed for the random weights.
        device: Device of the parameters, as in torch.
        dtype: Type of the parameters, float32 by default.
        labels: Names of the classes, as in `load`.
        preprocess: How images are prepared, as in `load`.
        **overrides: Fields of the spec to replace, such as `num_classes=10`, and `problem_type` (see `load`).

    Raises:
        InputError: The name or a field does not exist, or sizes do not fit together.
    """
    config = find_architecture(name, labels=labels, preprocess=preprocess, **overrides)
    return random_model(config, seed, device=device, dtype=dtype)


def load(
    source: ModelLike,
    *,
    num_classes: int | None = None,
    check: Literal["header", "full"] = "header",
    device: Any = None,
    dtype: torch.dtype | None = None,
    offline: bool | None = None,
    allow_drop: Sequence[str] = (),
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> ViT:
    """Load a model with its weights.

    Only headers are read: tensors are memory-mapped and read when they are first used.

    Args:
        source: A registry name or another library's name, alone for the weights that it means (those that ship with it, or its
            default tag) or with a tag, a folder, a checkpoint file, `hf-hub:ORG/NAME[@REVISION]`, or a module of another
            library. A folder or file that holds a model comes before a name.
        num_classes: Replace the head by a new one with this number of classes.
        check: `"full"` reads all tensors, refuses values that are not finite, and compares the content hash.
        device: Device to move the model to.
        dtype: Type to convert the parameters to; by default they keep the type of the file.
        offline: Use only files in the Hub's cache; by default, what HF_HUB_OFFLINE states. Files from the Hub are compared
            with the hashes that the Hub states.
        allow_drop: Glob patterns of tensors to leave out, such as `criterion.*` or `head.*`.
        labels: Names of the classes, in place of those that the source states, if any; with `num_classes`, of the new head. A
            sequence; transformers' `id2label`; `"a,b,c"`; or a file: one name in each line, or JSON (a list, `id2label`, or a
            config of another library).
        preprocess: How images are prepared, in place of what the source states, if anything. The name of a preset (`imagenet`,
            `half`, `clip`, `siglip`, `dinov2`, ...), of a model or of a tag; a file (preprocessor_config.json, timm's
            config.json, TOML with a table `preprocess`); or a mapping with some of `mean`, `std`, `size`, `crop` and
            `interpolation`, which modify what the source states, or the preset or file named by `extends`. `crop` is the share
            of the resized image that is kept, as timm's `crop_pct`, or `"none"`.
        **facts: Fields of the spec that the checkpoint does not contain, such as `heads=3`; `prefix`, where a file contains
            several models; and `problem_type`: what the outputs stand for, in transformers' words
            (`single_label_classification`, `multi_label_classification`, `regression`). With `num_classes` it is that of the
            new head.

    Raises:
        InputError: The source does not exist, or a fact is missing.
        HubError: The weights cannot be downloaded, or there are none.
        RefusedContent: The tensors do not fit the model, or the content is refused.
    """
    if check not in ("header", "full"):
        raise InputError(f"unknown check {check!r}; choose from header, full")
    num_classes = parsed({"num_classes": num_classes}).get("num_classes")
    description = Description.taken_from(facts, labels, preprocess)
    checkpoint = reduced(find_weights(source, offline=offline, allow_drop=allow_drop, **facts), allow_drop)
    if check == "full":
        check_content(checkpoint)
    model = model_of(checkpoint)
    if not isinstance(source, str | os.PathLike):  # do not share memory with the other module
        for p in model.parameters():
            p.data = p.data.clone()
    if num_classes is not None and num_classes != model.spec.num_classes:
        model.set_head(num_classes)
    model.config = description.of(model.config)
    return model.to(device=device, dtype=dtype) if device is not None or dtype is not None else model


def save(model: ViT, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` to a folder and return the folder.

    Args:
        model: The model, with any device and type of its parameters.
        folder: The folder, created if it does not exist. Both files are replaced in one step; other files in it stay.

    Raises:
        CannotWrite: The folder or the files cannot be written.
    """
    return save_model(model, Path(folder))


def convert(
    source: ModelLike,
    out: str | os.PathLike[str],
    to: str = "vitzoo",
    *,
    accept: Sequence[str] = (),
    allow_drop: Sequence[str] = (),
    force: bool = False,
    random: bool = False,
    seed: int | None = None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> Converted:
    """Write a model with its weights for another library.

    What was written is read back and compared bit for bit before it gets its name.

    Args:
        source: A model, as in `load`.
        out: A file, recognised by its suffix, or a folder, which also gets the library's config.
        to: `vitzoo`, `timm`, `hf`, `torchvision`, `vit-pytorch`, `dinov2`, `deit`, `mae`, `open_clip` or `google`.
        accept: Conventions in which the target may differ from the model: `norm_eps`, `act`. The effect on the outputs is
            measured.
        allow_drop: Glob patterns of tensors to leave out, such as `head.*`, or of tensors that no ViT has.
        force: Replace an existing file or model.
        random: Write random weights of a registry name or a config file.
        seed: Seed for the random weights, 0 by default.
        labels: Names of the classes, as in `load`.
        preprocess: How images are prepared, as in `load`.
        **facts: Fields of the spec, as in `load`. `image_size` and `patch_size` resize the model. With another `num_classes`
            than the weights have, the classifier is replaced by a new one, with random weights.

    Raises:
        NotRepresentable: The target cannot express the model; the message names the field or tensor.
        RefusedContent: The weights contain values that are not finite.
        CannotWrite: The output exists or cannot be written.
    """
    from vit_zoo.loading.convert import check_choice, write_converted

    check_choice(to, accept)
    facts |= {"labels": labels, "preprocess": preprocess}
    checkpoint = find_weights(source, random=random, seed=seed, allow_drop=allow_drop, ways=(RANDOM,), **facts)
    return write_converted(checkpoint, Path(out), to, accept=accept, allow_drop=allow_drop, force=force)


def export(
    model: ModelLike,
    to: str | Sequence[str] = "onnx",
    *,
    out: str | os.PathLike[str] | None = None,
    triton: str | os.PathLike[str] | None = None,
    opset: int | None = None,
    batch: int | None = None,
    operators: Operators | None = None,
    placement: Placement | None = None,
    outputs: Sequence[str] = (),
    include: Sequence[str] = (),
    dynamic: Dynamic | None = None,
    verify: bool | Effort = True,
    weights: str | os.PathLike[str] | None = None,
    allow_drop: Sequence[str] = (),
    random: bool = False,
    seed: int | None = None,
    precision: Precision | Sequence[Precision] = "fp32",
    calibrate: str | os.PathLike[str] | None = None,
    evaluate: str | os.PathLike[str] | None = None,
    min_agreement: float | None = None,
    min_accuracy: float | None = None,
    min_cosine: float | None = None,
    min_neighbours: float | None = None,
    force: bool = False,
    note: Note = lambda line: None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> list[Export]:
    """Write a model as ONNX, TorchScript or `.pt2` files, each verified on disk before it gets its name.

    Args:
        model: A model, as in `load`, or a config file, which gets random weights.
        to: One format or several: `onnx`, `torchscript`, `pt2`.
        out: A file (for one file) or a folder; the current folder by default. In a folder, files are called `NAME.onnx`,
            `NAME_fp16.onnx`, `NAME_bf16.onnx`, `NAME_int8.onnx` (static), `NAME_int8_dynamic.onnx`, `NAME_int8_weights.onnx`,
            `NAME.torchscript.pt` and `NAME.pt2`.
        triton: ONNX only, in place of `out`: a folder that is a model repository of Triton Inference Server; `NAME/config.pbtxt`,
            `NAME/labels.txt` and `NAME/1/model.onnx` are written to it.
        opset: ONNX only: the opset version, 13 to 25; 20 by default. Below 17, a graph has core operators.
        batch: ONNX only: the only number of images that the file takes at a time, so that every dimension is static; any number
            by default.
        operators: ONNX only: `core` leaves out what compilers for phones and neural processors lack, such as
            LayerNormalization, Gelu, Attention and ranks above 4; `all` by default.
        placement: ONNX only: where the weights are stored. `inline`: in the file, the default below 2 GiB. `external`: in
            `NAME.onnx_data` next to it. `shared`: the file refers to the folder's `model.safetensors`.
        outputs: Names of the outputs, such as `logits` or `block.5`; `attn.*`, `block.*` and `block.*.map` stand for those of all
            blocks. By default the model's own output.
        include: `softmax` replaces `logits` by `probabilities`, and so does `sigmoid` where the config's `problem_type` is
            `multi_label_classification`. `preprocess`, ONNX only, adds preprocessing to the graph: the input is `image`, uint8
            [batch, height, width, channels], of any size. `preprocess-exact` gives exactly Pillow's pixels, but is slower.
        dynamic: ONNX only: `hw` accepts images of any height and width that the patch size divides. Learned positions are
            interpolated in the graph with the method of their source, or with the fact `resize`. `patches` accepts the patches
            of images of different sizes in one batch, as `patch_inputs` of the opened file makes them.
        verify: Whether to verify each file, or the effort, as in `verify`. A file that is not verified has no self-check.
        weights: Weights for a registry name: a folder or a checkpoint file. Preprocessing and labels are those of its folder,
            or those that a tag states for this file; those of the name's published weights are not used.
        allow_drop: Glob patterns of tensors to leave out, as in `load`.
        random: Export random weights of a registry name. The file is stamped, and the logger `vit_zoo` says it.
        seed: Seed for the random weights, 0 by default.
        precision: ONNX only: one precision or several, each for a file of its own. `fp32`: weights as they are stored. `fp16`,
            `bf16`. `int8-static`: the ranges of the activations are calibrated on images. `int8-dynamic`: the ranges are those
            of each batch, so the images of a batch share their rounding. `int8-weights`: only the weights are quantised.
        calibrate: int8 only: a folder of images for calibration.
        evaluate: int8 only: a folder of images on which the file must be close enough to the model; by default, if there is
            one of the minima below, a quarter of `calibrate`, held out. As few layers as necessary stay in float.
        min_agreement: int8 only: minimum share of images (0 to 1) with the float model's top-1 class; with the same classes
            that apply, for `multi_label_classification`; for features, with the same nearest neighbour among the images.
        min_accuracy: int8 only: minimum top-1 accuracy (0 to 1). The subfolders of the images name the classes.
        min_cosine: int8 only: minimum cosine of every image's outputs with the model's (0 to 1), in place of the usual limits
            of int8 files (25 dB and a cosine of 0.998).
        min_neighbours: int8 only, for features: minimum share (0 to 1) of the ten nearest neighbours of each image, by cosine,
            that are among the ten nearest by the float model's features; the mean of all images.
        force: Replace files that hold another model or were written by another tool. Earlier exports of the same model are
            always replaced.
        note: Function that receives lines of progress.
        labels: Names of the classes, as in `load`.
        preprocess: How images are prepared, as in `load`.
        **facts: Fields of the spec, as in `load`. With another `num_classes` than the weights have, the classifier is replaced
            by a new one, with random weights.

    Raises:
        InputError: Options are unknown or contradict each other.
        HubError: The weights that a name means cannot be downloaded, or there are none.
        CheckFailed: A file does not compute the model, or misses a minimum; it is set aside as `*.rejected`.
        CannotWrite: A file cannot be written, or another model is in its place.
    """
    from vit_zoo.exporters.export_file import export_model
    from vit_zoo.exporters.options import ExportOptions, one_or_several

    options = ExportOptions(
        formats=one_or_several(to), out=out, triton=triton, opset=opset, batch=batch, operators=operators,
        placement=placement, outputs=tuple(outputs),
        include=tuple(include), dynamic=dynamic, verify=verify, weights=weights, allow_drop=patterns(allow_drop),
        random=random, seed=seed, precisions=one_or_several(precision), calibrate=calibrate, evaluate=evaluate,
        min_agreement=min_agreement, min_accuracy=min_accuracy, min_cosine=min_cosine,
        min_neighbours=min_neighbours, force=force,
    )  # fmt: skip
    return export_model(model, options, {**facts, "labels": labels, "preprocess": preprocess}, note)


def verify(
    artifact: ModelLike,
    against: ModelLike | None = None,
    *,
    effort: Effort = "default",
    fixed: Sequence[str] = (),
    blocks: bool = False,
    pictures: str | os.PathLike[str] | None = None,
    min_cosine: float | None = None,
    random: bool = False,
    seed: int | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    **facts: Any,
) -> ParityReport:
    """Check that an exported file of any tool computes a model, or that two models or two files compute the same.

    A file that fails does not raise an error: the report has `ok=False`. The report on an exported file is also written to
    `FILE.parity.json`. A good report on the same bytes is kept, unless a check with at least the same effort replaces it or the
    file contradicts itself.

    Args:
        artifact: An exported file, or a model as in `load`.
        against: The reference: a model as in `load`, another exported file, or a live module of another library, which
            computes with its own code. By default the spec and the weights in the file.
        effort: `quick` (no float64 reference, no run without onnxruntime's optimiser), `default`, or `full` (more images and
            batch sizes, every intermediate value).
        fixed: Axes that the file declares dynamic but that are used at one size: `channels`, `height`, `width`.
        blocks: Measure the error after every block.
        pictures: int8 only: a folder of real images to measure the file on. They should be like the images that it was
            calibrated with.
        min_cosine: int8 only: another limit than the usual ones, as in `export`.
        random: Compare with random weights of the name or config file `against`.
        seed: Seed for the random weights, 0 by default.
        time_limit: ONNX files only, which run in a child process: seconds that the file may take in all, by default 15, and
            more by its size and the number of runs.
        memory_limit: ONNX files only: GB that the child process may use, by default as in `open`.
        **facts: Fields of the spec of `against`, as in `load`.

    Raises:
        InputError: Something does not exist, or a fact is missing.
        RefusedContent: The file cannot be read.
        Stopped: The file reached a limit, or onnxruntime crashed.
    """
    from vit_zoo.parity.resolve_reference import VerifyOptions, verify_model

    options = VerifyOptions(
        effort=effort, fixed=tuple(fixed), blocks=blocks, pictures=pictures, min_cosine=min_cosine, random=random, seed=seed,
        time_limit=time_limit, memory_limit=memory_limit,
    )  # fmt: skip
    return verify_model(artifact, against, options, facts)


def publish(
    model: ModelLike,
    repo: str,
    *,
    dry_run: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
    licence: str | None = None,
    message: str | None = None,
    formats: Sequence[str] = (),
    without: Sequence[str] = (),
    calibrate: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    note: Note = lambda line: None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> Published:
    """Publish a model to a repository of the Hugging Face Hub, in a single commit, or in none if nothing has changed.

    vit_zoo, timm, transformers, transformers.js, optimum and onnxruntime load the repository, if they can express the model. It
    contains `config.json`, `model.safetensors`, `transformers.safetensors`, `preprocessor_config.json`, ONNX files in float32,
    float16 and int8, their parity reports, measurements, and a model card. Files exported into the model's folder are published
    as they are, if their parity reports are good and belong to these bytes and weights.

    Args:
        model: A model, as in `load`.
        repo: The repository, `ORG/NAME`.
        dry_run: A folder to write the repository to; nothing is sent.
        revision: Branch to commit to, created if it does not exist; `main` by default.
        private: Create the repository as private.
        create_pr: Open a pull request instead of committing to the branch.
        tag: Tag for the commit; it must not exist yet.
        licence: Licence of the weights, such as `apache-2.0`, if none is known yet.
        message: Commit message.
        formats: Further formats to publish: `torchscript`, `pt2`.
        without: ONNX files to leave out: `fp32`, `fp16`, `int8`.
        calibrate: A folder of images to calibrate a static int8 file with; by default only the weights are quantised.
        random_weights: Allow publishing untrained weights.
        note: Function that receives lines of progress.
        labels: Names of the classes, as in `load`.
        preprocess: How images are prepared, as in `load`.
        **facts: Fields of the spec, as in `load`.

    Raises:
        InputError: Options are unknown or contradict each other, the weights are random, or the folder contains a file for
            secrets.
        CheckFailed: A file does not compute the model, or its report is missing, outdated or bad.
        RefusedContent: A file to publish contains a secret or a pickle.
        HubError: The Hub refuses; the repository is left as it was.
    """
    from vit_zoo.publishing.publish import PublishOptions, publish_model

    options = PublishOptions(
        repo=repo, dry_run=dry_run, revision=revision, private=private, create_pr=create_pr, tag=tag, licence=licence,
        message=message, formats=tuple(formats), without=tuple(without), calibrate=calibrate, random_weights=random_weights,
    )  # fmt: skip
    return publish_model(model, options, {**facts, "labels": labels, "preprocess": preprocess}, note)


def pull(repo: str, out: str | os.PathLike[str] | None = None, *, offline: bool | None = None, force: bool = False) -> Pulled:
    """Download a repository of the Hugging Face Hub, in the layout of vit_zoo, timm or transformers, as a model folder.

    Every file is compared with the hash that the Hub states. The folder records the commit and the licence, and keeps the
    licence text.

    Args:
        repo: `ORG/NAME` or `ORG/NAME@REVISION`.
        out: Folder to write; `./NAME` by default.
        offline: Use only files in the Hub's cache.
        force: Replace the model in the folder, if there is one.

    Raises:
        HubError: The files cannot be downloaded, or are not in the cache.
        RefusedContent: A file does not match its hash, or is not a model.
        CannotWrite: The folder exists or cannot be written.
    """
    from vit_zoo.hub.download import Address
    from vit_zoo.publishing.pull import pull_model

    address = Address.parse(repo)
    folder = Path(address.repo.partition("/")[2]) if out is None else Path(out)
    return pull_model(address, folder, offline=offline, force=force)
