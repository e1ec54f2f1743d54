"""Export of one file: written under a temporary name, verified on disk, then renamed, or set aside if it fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo import __version__
from vit_zoo.errors import CheckFailed, InputError, Option, RefusedContent, notice, printable
from vit_zoo.exporters.options import SHARED, ExportOptions, Placement
from vit_zoo.exporters.selfcheck import file_selfcheck, model_selfcheck
from vit_zoo.exporters.targets import checked_targets
from vit_zoo.files import SafetensorsFile, Staged, digest_of, staging_folder
from vit_zoo.files.file_set import FileSet
from vit_zoo.formats import FORMATS
from vit_zoo.formats.artifact import SELFCHECK, report_path, size_text
from vit_zoo.graph.options import GraphOptions
from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
from vit_zoo.loading.facts import parsed
from vit_zoo.loading.load import RANDOM, WEIGHTS, find_weights, is_random_by_itself, reduced
from vit_zoo.loading.source import find_architecture
from vit_zoo.model.config import ModelConfig
from vit_zoo.parity.live import Live
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.exporters.int8.search import Int8Search
    from vit_zoo.graph.build import Graph
    from vit_zoo.graph.int8_ops import Quantisation
    from vit_zoo.graph.options import Precision
    from vit_zoo.parity.report import Effort, ParityReport
    from vit_zoo.parity.tolerance import Judgement

EVALUATE, MIN_COSINE = Option("evaluate", "FOLDER"), Option("min_cosine", "COSINE")
Note = Callable[[str], None]  # receives a line of progress


@dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        path: The file.
        config: The config in it.
        report: Its parity report; None if it was not verified.
        data: The `.onnx_data` file next to it; None if it has none.
        judgement: Results of an int8 file with `min_agreement`, `min_accuracy` or `min_cosine` on real images.
    """

    path: Path
    config: ModelConfig
    report: ParityReport | None
    data: Path | None = None
    judgement: Judgement | None = None

    def __repr__(self) -> str:
        verdict = "not verified" if self.report is None else self.report.verdict
        size = size_text([self.path] if self.data is None else [self.path, self.data])
        return printable(f"<Export {self.path}: {self.config.name}, {size}, {verdict}>")


def export_model(model: ModelLike, options: ExportOptions, facts: Mapping[str, Any], note: Note) -> list[Export]:
    """Write a model in each format, verified on disk before it gets its name. Raises as `vit_zoo.export`."""
    facts = parsed(facts)
    sized = bool({"image_size", "patch_size"} & set(facts))
    # with a dynamic size, the recipe applies to the graph only
    recipe = facts.get("resize") if sized or options.dynamic is None else facts.pop("resize", None)
    random = options.random or (options.weights is None and is_random_by_itself(model))
    if random and options.weights is None and isinstance(model, str | os.PathLike):
        config = find_architecture(model, **facts)  # checked before weights are made
        options.resolve(config, recipe)
        checked_targets(config.replace(random_seed=options.seed or 0), None, 4 * config.spec.params, options)
    found = find_weights(
        model,
        weights=options.weights,
        random=random,
        seed=options.seed,
        file_size=None if options.dynamic is None else "any",
        allow_drop=options.allow_drop,
        ways=(WEIGHTS, RANDOM),
        **facts,
    )
    source = reduced(found, options.allow_drop)
    resolved = options.resolve(source.config, recipe)
    rounded = source.in_float32()
    if rounded is not source:
        note("rounding float64 weights to float32")
    source = rounded
    if source.config.accuracy is not None:
        source = replace(source, config=source.config.for_weights(source.digest or digest_of(source.tensors)))
    if options.placement == "shared":
        _check_shared(source, str(model))
    targets = checked_targets(source.config, source.path, sum(tensor.nbytes for tensor in source.tensors.values()), options)
    if source.config.random_text and not random:  # else it was announced before the weights were made
        notice(f"{source.config.name} has {source.config.random_text}: it is not trained")
    live, written = Live(source), []

    def write(name: str, precision: Precision, target: Path, files: FileSet) -> Export:
        graph_options, search = resolved[precision]
        if not FORMATS[name].graph:
            return write_program(source, target, live, name, graph_options.outputs, options.effort, files=files)
        return write_onnx_file(source, target, live, graph_options, options.placement, options.effort, search, files=files)

    if options.triton is not None:
        from vit_zoo.exporters.triton import write_repository

        return write_repository([(precision, target) for _, precision, target in targets], partial(write, "onnx"))
    with FileSet() as files:
        try:
            for name, precision, target in targets:
                note(f"writing {target}{', then verifying it' if options.effort else ''}")
                written.append(write(name, precision, target, files))
        except CheckFailed:  # the files before it passed
            files.commit()
            raise
        files.commit()
    return written


def _check_shared(source: Checkpoint, name: str) -> None:
    """Raise InputError for weights that an ONNX graph cannot refer to."""
    if source.cached:
        raise InputError("cannot write into the Hub's cache", where=name, hint="`vitzoo pull` makes a folder of the repository")
    if any(stored.span is None for stored in source.tensors.values()):
        raise InputError(f"{SHARED} needs a safetensors file whose tensors fit unchanged", options=[SHARED])


def write_onnx_file(
    source: Checkpoint,
    target: Path,
    live: Live,
    graph_options: GraphOptions,
    placement: Placement | None,
    effort: Effort | None,
    search: Int8Search | None = None,
    *,
    files: FileSet,
) -> Export:
    """Write an ONNX file and add it to `files`. `search` is the calibration of an int8 file and what it must reach."""
    from vit_zoo.graph.build import build
    from vit_zoo.graph.write import PROTO_LIMIT, inline_size, write_external, write_inline, write_shared

    spec, tensors = source.config.spec, source.tensors
    preprocess = source.config.preprocess
    graph = build(spec, tensors, graph_options, preprocess=preprocess)  # for int8, a float graph of the same size
    placement = placement or ("inline" if inline_size(graph) <= PROTO_LIMIT else "external")
    details: dict[str, Any] = {**_details(effort), "placement": placement}
    size = sum(weight.stop - weight.start for weight in graph.weights.values())
    data: Staged | None = None
    if placement == "external":
        folder = files.enter(staging_folder(target))
        staged = files.enter(Staged(target, folder=folder))
        data = files.enter(Staged(target.with_name(target.name + "_data"), need=size, folder=folder))
        details["data"] = data.target.name
    else:
        staged = files.enter(Staged(target, need=size if placement == "inline" else 0))
    if placement == "shared":
        assert source.path is not None
        details["data"] = source.path.name
        details["header_sha256"] = SafetensorsFile(source.path).header_sha256
    if graph_options.precision != "fp32":
        details["source_sha256"] = source.digest or digest_of(tensors)

    def write(graph: Graph, graph_options: GraphOptions) -> None:
        metadata = _metadata(source.config, {**details, **replace(graph_options, outputs=graph.outputs).document()})
        if data is not None:
            write_external(graph, staged, data, metadata)
        elif placement == "inline":
            write_inline(graph, staged, metadata)
        else:
            write_shared(graph, staged, metadata, source.digest)

    def write_rounded(float_layers: tuple[str, ...], quantisation: Quantisation) -> Path:
        rounded = replace(graph_options, float_layers=float_layers)
        write(build(spec, tensors, rounded, quantisation, preprocess), rounded)
        return staged.path

    judgement = None
    if search is None:
        write(graph, graph_options)
    else:
        judgement = search.run(live, write_rounded)
    if effort is not None:  # else nothing is computed, and torch is not imported
        _append_selfcheck(staged, live, replace(graph_options, outputs=graph.outputs), effort)
    report = _verified(staged, live, effort, data, search)
    return _finish(files, staged, source.config, report, data, judgement)


def _append_selfcheck(staged: Staged, live: Live, options: GraphOptions, effort: Effort) -> None:
    """Add the self-check to the metadata of a written file, unless its outputs are not finite or too large for one."""
    from vit_zoo.graph.write import metadata_entry

    if options.precision.startswith("int8"):
        selfcheck = file_selfcheck(staged.path, live.source.config, options)
    else:
        selfcheck = model_selfcheck(live, options.outputs, options, effort)
    if selfcheck is not None:
        staged.append(metadata_entry(SELFCHECK, selfcheck.dumps()))


def write_program(
    source: Checkpoint,
    target: Path,
    live: Live,
    format_: str,
    outputs: Sequence[str],
    effort: Effort | None,
    *,
    files: FileSet,
) -> Export:
    """Write a TorchScript or .pt2 file and add it to `files`."""
    names = source.config.checked_outputs(outputs)
    details = {**_details(effort), "outputs": list(names), "weights_sha256": source.digest or digest_of(source.tensors)}
    selfcheck = None if effort is None else model_selfcheck(live, names, effort=effort)
    if selfcheck is not None:
        details["selfcheck"] = selfcheck.model_dump(mode="json")
    write = FORMATS[format_].write
    assert write is not None
    staged = files.enter(Staged(target, need=sum(tensor.nbytes for tensor in source.tensors.values())))
    with step(f"writing {target.name}"):
        write(live.model, names, staged, details)
    return _finish(files, staged, source.config, _verified(staged, live, effort))


def _verified(
    staged: Staged, live: Live, effort: Effort | None, data: Staged | None = None, search: Int8Search | None = None
) -> ParityReport | None:
    if effort is None:
        return None
    from vit_zoo.parity.verify import check_parity

    given: dict[str, Any] = {} if search is None else {"pictures": search.pictures(), "limits": search.limits}
    try:
        companion = None if data is None else data.path
        return check_parity(staged.path, live.reference, companion=companion, effort=effort, **given)
    except RefusedContent as error:  # the file that we wrote cannot be opened
        hint = f"set aside as {_set_aside(staged, data).name}"
        raise CheckFailed(f"cannot be opened: {error.message}", where=staged.target, hint=hint) from None


def _set_aside(staged: Staged, data: Staged | None, report: ParityReport | None = None) -> Path:
    """Rename a file that failed, with its data and its report, to `NAME.rejected`; an existing target stays."""
    aside = staged.target.with_name(f"{staged.target.name}.rejected")
    with FileSet() as files:
        files.remove(report_path(aside))
        if data is not None:
            files.remove(aside)
            files.add(data, data.target.with_name(f"{data.target.name}.rejected"))
        files.add(staged, aside)
        if report is not None:
            files.add_text(report_path(aside), report.model_copy(update={"file": aside.name}).dumps())
        files.commit()
    return aside


def _finish(
    files: FileSet,
    staged: Staged,
    config: ModelConfig,
    report: ParityReport | None,
    data: Staged | None = None,
    judgement: Judgement | None = None,
) -> Export:
    """Add the file to `files`, or set it aside, with its report. The report of a replaced file is removed."""
    target = staged.target
    if report is not None and judgement is not None:
        report = report.model_copy(update={"judgement": judgement})
    cause = None
    options: list[Option] = []
    if judgement is not None and not judgement.ok:
        cause = f"misses the required accuracy: {judgement}"
    elif report is not None and not report.ok:
        cause = f"does not compute the model: {report.summary()}"
    if cause is not None:
        aside = _set_aside(staged, data, report)
        details = {} if report is None else {"report": report.model_dump(mode="json")}
        hint = f"set aside as {aside.name}"
        far = [] if report is None or judgement is not None else [measured for measured in report.agreements if not measured.ok]
        if any(measured.decibels is not None for measured in far):  # it misses the usual limits, and nothing was searched
            hint += f"; {EVALUATE} leaves the layers in float that cause it"
            hint += f", {MIN_COSINE} states another limit" if any(measured.angle is not None for measured in far) else ""
            options = [EVALUATE, MIN_COSINE]
        raise CheckFailed(cause, where=target, hint=hint, details=details, options=options)
    files.remove(report_path(target))
    if data is not None:
        files.remove(target)  # with other weights it would compute wrong values
        files.add(data)
    files.add(staged)
    if report is not None:
        report = report.model_copy(update={"file": target.name})
        files.add_text(report_path(target), report.dumps())
    return Export(target, config, report, None if data is None else data.target, judgement)


def _details(effort: Effort | None) -> dict[str, Any]:
    return {"version": __version__, "verify": "off" if effort is None else "see the .parity.json beside this file"}


def _metadata(config: ModelConfig, details: Mapping[str, Any]) -> dict[str, str]:
    return {"vit_zoo": json.dumps(config.document(), sort_keys=True), "vit_zoo.export": json.dumps(details, sort_keys=True)}
