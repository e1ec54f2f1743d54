"""The line: name -> spec -> model -> weights -> artifact -> parity report; each arrow is one function here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_zoo.errors import InputError
from vit_zoo.loading.load import check_content, filled, find_weights, random_model, save_model
from vit_zoo.loading.source import ModelLike, find_architecture

if TYPE_CHECKING:
    import torch

    from vit_zoo.exporters.export_file import Export, Note
    from vit_zoo.exporters.options import Placement
    from vit_zoo.graph.options import Precision
    from vit_zoo.loading.convert import Converted
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.report import Effort, ParityReport
    from vit_zoo.publishing.publish import Published
    from vit_zoo.publishing.pull import Pulled


def create(
    name: str | os.PathLike[str], *, seed: int = 0, device: Any = None, dtype: torch.dtype | None = None, **overrides: Any
) -> ViT:
    """A model of a registry name or a config file with seeded random weights; `overrides` replace fields of the spec.

    Raises InputError for a name or field that does not exist, or sizes that do not fit together.
    """
    return random_model(find_architecture(name, **overrides), seed, device=device, dtype=dtype)


def load(
    source: ModelLike,
    *,
    num_classes: int | None = None,
    check: Literal["header", "full"] = "header",
    device: Any = None,
    dtype: torch.dtype | None = None,
    offline: bool | None = None,
    **facts: Any,
) -> ViT:
    """A model with its weights, from a name, a folder, a checkpoint file, `hf-hub:ORG/NAME[@REV]`, or another library's module.

    A name alone stands for its default tag. What the Hub has comes into its cache, each file compared with the hash that
    the Hub states; `offline`, or HF_HUB_OFFLINE, takes what is there.

    Only headers are read: tensors are mapped from the file and come in when used; `check="full"` reads everything,
    refuses values that are not finite and compares the content hash. `num_classes` puts a fresh head in place.
    `facts` are fields of the spec that a checkpoint cannot tell, such as `heads=3`.
    Raises HubError for weights that cannot be had, RefusedContent for tensors that do not fit.
    """
    if check not in ("header", "full"):
        raise InputError(f"check {check!r}: either 'header' or 'full'")
    found = find_weights(source, offline=offline, **facts)
    if check == "full":
        check_content(found)
    model = filled(found)
    if not isinstance(source, str | os.PathLike):  # the other module keeps its own memory
        for p in model.parameters():
            p.data = p.data.clone()
    if num_classes is not None and num_classes != model.spec.num_classes:
        model.set_head(num_classes)
    return model.to(device=device, dtype=dtype) if device is not None or dtype is not None else model


def save(model: ViT, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` into a folder, which is made if it is not there; returns it.

    Files that are there are replaced, each atomically. Raises CannotWrite.
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
    **facts: Any,
) -> Converted:
    """Write a model with its weights for another library: `vitzoo`, `timm`, `hf`, `torchvision`, `vit-pytorch`, `dinov2`,
    `deit`, `mae`, `open_clip` or `google`.

    `out` is a file (by its suffix) or a folder, which gets the library's config too. What is written is read back and
    compared bit for bit before it gets its name. `accept` names conventions that the target may hold otherwise
    (`norm_eps`, `act`): the difference that this makes is measured. `allow_drop` are globs of tensors to leave out.
    `facts` are as in `load`; with `image_size` or `patch_size` the model is resized.
    Raises NotRepresentable naming what the target cannot express, RefusedContent for values that are not finite.
    """
    from vit_zoo.loading.convert import check_choice, write_converted

    check_choice(to, accept)
    found = find_weights(source, **facts)
    return write_converted(found, Path(out), to, accept=accept, allow_drop=allow_drop, force=force)


def export(
    model: ModelLike,
    to: str | Sequence[str] = "onnx",
    *,
    out: str | os.PathLike[str] | None = None,
    opset: int | None = None,
    placement: Placement | None = None,
    outputs: Sequence[str] = (),
    include: Sequence[str] = (),
    dynamic: Literal["hw"] | None = None,
    verify: bool | Effort = True,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    precision: Precision = "fp32",
    calibrate: str | os.PathLike[str] | None = None,
    evaluate: str | os.PathLike[str] | None = None,
    min_agreement: float | None = None,
    min_accuracy: float | None = None,
    note: Note = lambda line: None,
    **facts: Any,
) -> list[Export]:
    """Write a model as ONNX, TorchScript or .pt2 files, each verified on disk before it gets its name.

    `out` is a file (for one format) or a folder, the current one by default. `placement` of ONNX weights: `inline` in
    the file (the default below 2 GiB), `external` in `.onnx_data` beside it, `shared` with the `model.safetensors` of the
    folder. A registry name alone is exported with the random weights of `seed`, or those that ship with it. `verify` may
    name the effort, as in `verify`.
    `dynamic="hw"` makes an ONNX file take images of any height and width that the patch divides: learned positions are
    interpolated in the graph as their source does, or by the recipe of the fact `resize`.
    `include`: `softmax` gives `probabilities` in the place of `logits`; `preprocess` makes an ONNX file take whole images,
    `image` [batch, height, width, channels] uint8, and prepare them as the model says; `preprocess-exact` does so without a
    pixel off, and slower.
    `precision` of ONNX files: `fp32` (weights as they are stored), `fp16`, `bf16`, `int8-static` (ranges from the images in
    the folder `calibrate`), `int8-dynamic` (ranges of the batch at hand, so that images share their rounding) or
    `int8-weights`. An int8 file may have to give the model's first class for a share of `min_agreement`, or be right for
    `min_accuracy`, of the images in `evaluate` (else of a quarter of `calibrate`, held out): as few layers as that takes
    stay in float.
    Raises CheckFailed when a file does not compute the model, or not well enough: it is then set aside as `*.rejected`.
    """
    from vit_zoo.exporters.export_file import export_model
    from vit_zoo.exporters.options import ExportOptions, formats_of

    options = ExportOptions(
        formats=formats_of(to), out=out, opset=opset, placement=placement, outputs=tuple(outputs), include=tuple(include),
        dynamic=dynamic, verify=verify, weights=weights, seed=seed, precision=precision, calibrate=calibrate, evaluate=evaluate,
        min_agreement=min_agreement, min_accuracy=min_accuracy,
    )  # fmt: skip
    return export_model(model, options, facts, note)


def verify(
    artifact: ModelLike,
    against: ModelLike | None = None,
    *,
    effort: Effort = "default",
    fixed: Sequence[str] = (),
    blocks: bool = False,
    pictures: str | os.PathLike[str] | None = None,
    **facts: Any,
) -> ParityReport:
    """Check that an artifact, any tool's, computes a model; or that two checkpoints, or two artifacts, compute the same.

    `against` is anything that `load` takes, another artifact, or another library's live module, which then computes by
    its own code; without it, the spec and the weights that the file itself holds. `effort`: `quick` (no float64, no
    optimiser off), `default`, or `full` (more images and batches, every inner value). `fixed` names axes that a file
    declares free and that are used at one size only. `blocks` measures the error behind every block. `pictures` is a folder
    of real images to measure a quantised file on: its ranges are those of the images that it was calibrated with. Writes
    `FILE.parity.json` beside an artifact; but the verdict that these very bytes got against their model stays, unless a
    greater effort confirms it or the file contradicts itself. Does not raise for a file that fails: the report says so.
    """
    from vit_zoo.parity.resolve_reference import VerifyOptions, verify_model

    options = VerifyOptions(effort=effort, fixed=tuple(fixed), blocks=blocks, pictures=pictures)
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
    **facts: Any,
) -> Published:
    """Bring a repository of the Hub, `ORG/NAME`, to hold a model in a form that vit_zoo, timm, transformers, transformers.js,
    optimum and onnxruntime load, those of them that can express it; by one commit, or none if all is there already.

    It holds config.json, model.safetensors, transformers.safetensors, preprocessor_config.json, ONNX files in float32,
    float16 and int8 (weights alone, or static with the images in `calibrate`) but for those in `without`, TorchScript and .pt2
    where `formats` asks, their parity reports, measurements, and a card. Files exported into the model's folder are taken
    as they are, if their reports are good and of these bytes and weights. `dry_run` names a folder to stage in: nothing
    is sent. `revision` is a branch. Random weights go only with `random_weights`.
    Raises CheckFailed for a file that does not compute the model or whose report is missing, stale or bad, RefusedContent
    for secrets and pickles, HubError when the Hub refuses; the repository is then as it was.
    """
    from vit_zoo.publishing.publish import PublishOptions, publish_model

    options = PublishOptions(
        repo=repo, dry_run=dry_run, revision=revision, private=private, create_pr=create_pr, tag=tag, licence=licence,
        message=message, formats=tuple(formats), without=tuple(without), calibrate=calibrate, random_weights=random_weights,
    )  # fmt: skip
    return publish_model(model, options, facts, note)


def pull(repo: str, out: str | os.PathLike[str] | None = None, *, offline: bool | None = None, force: bool = False) -> Pulled:
    """Write a repository of the Hub, of ours, timm's or transformers', as a folder, ./NAME by default.

    `repo` is `ORG/NAME` or `ORG/NAME@REVISION`. Every file is compared with the hash that the Hub states; the commit, the
    licence and its text are kept. `offline` takes what the cache has. Raises HubError, RefusedContent, CannotWrite.
    """
    from vit_zoo.hub.download import Address
    from vit_zoo.publishing.pull import pulled

    address = Address.parse(repo)
    folder = Path(address.repo.partition("/")[2]) if out is None else Path(out)
    return pulled(address, folder, offline=offline, force=force)
