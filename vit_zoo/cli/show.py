"""Document and text of `vitzoo show` for a name, a config, a checkpoint or an exported file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.cli.show_file import REPORT, exported_file, exports_in, exports_table, parity_report, plain
from vit_zoo.cli.text import pairs, table
from vit_zoo.errors import InputError, notice, with_flags
from vit_zoo.files import sha256_of, sniff
from vit_zoo.files.checkpoints import CHECKPOINTS
from vit_zoo.formats import describe
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.loading.locator import ExportedFile, Folder, RegistryName, TaggedName, parse_locator, shadowed_name
from vit_zoo.loading.source import find_source
from vit_zoo.model.config import ModelConfig
from vit_zoo.publishing.numpy_code import onnx_program, program
from vit_zoo.registry.catalog import families
from vit_zoo.registry.configs import config_of, origin_of
from vit_zoo.registry.family_file import read_variant
from vit_zoo.registry.labels import label_set
from vit_zoo.registry.lookup import Named, aliases_of, tag_meant, tags_of

if TYPE_CHECKING:
    from vit_zoo.model.preprocess import Preprocess


@dataclass(frozen=True)
class Overview:
    """What is shown of a model or file: as a JSON document, as text, and its preprocessing as a program, if it is known."""

    document: dict[str, Any]
    text: str
    code: str | None = None


def overview(locator: str, facts: Mapping[str, Any]) -> Overview:
    """Return what is shown for a name, a file or a folder. Raises InputError, RefusedContent."""
    if locator.endswith(REPORT) and Path(locator).is_file():
        if facts:
            raise InputError("--set does not apply to a parity report", where=locator)
        return Overview(*parity_report(Path(locator)))
    parsed = parse_locator(locator)
    shadowed = shadowed_name(locator, parsed)
    if shadowed is not None:
        notice(shadowed)
    match parsed:
        case ExportedFile(path):
            if facts:
                raise InputError("--set does not apply to an exported file: it contains its own config", where=path)
            return _exported_file(path)
        case Folder(path) if (exports := exports_in(path)) and not _holds_more(path, exports):
            if facts:
                raise InputError("--set does not apply to exported files: each contains its own config", where=path)
            documents, text = exports_table(path, exports)
            return Overview({"folder": path.name, "exports": documents}, text)
        case RegistryName(named=named) | TaggedName(named=named):
            return _registry_name(named, facts)
    return _file_or_folder(locator, facts)


def _holds_more(folder: Path, exports: list[Path]) -> bool:
    """Return whether a folder has a model besides exported files."""
    others = [file for file in folder.iterdir() if file.is_file() and file not in exports]
    return any(file.name == "config.json" or sniff(file) in CHECKPOINTS for file in others)


def _registry_name(named: Named, facts: Mapping[str, Any]) -> Overview:
    config = config_of(named.variant, named.tag, **facts)
    origin = {**origin_of(named.variant), **dict.fromkeys(facts, "stated")}
    if named.tag is not None:
        origin |= dict.fromkeys(("num_classes", *named.tag.spec), f"the tag {named.tag.tag}")
    document: dict[str, Any] = {**_common(config), "fields": _origins(config, origin)}
    lines = _lines(config)
    tables = []
    if named.alias is not None:
        lines["alias"] = named.alias.sentence
        document["called"] = asdict(named.alias)
    meant = tag_meant(named)
    if named.variant.weights is not None:
        lines["weights"] = "shipped with this package"
    else:
        lines["weights"] = "none known" if meant is None else f"none shipped; the name means {meant.full_name} ({meant.address})"
    if named.tag is not None:
        tag = named.tag
        lines["weights"] = f"published, not downloaded: {tag.address}, revision {tag.revision}, dialect {tag.dialect}"
        lines |= {"top-1": named.tag.reported} if named.tag.reported else {}
        document["tag"] = asdict(named.tag)
    tables += _family(named, config, document, lines)
    tables += _aliases_and_tags(named.variant.name, document, with_tags=named.tag is None)
    return Overview(document, "\n\n".join([pairs(lines), _fields(config, document["fields"]), *tables]), _code(config))


def _code(config: ModelConfig) -> str | None:
    return None if config.preprocess is None else program(config.preprocess)


def _family(named: Named, config: ModelConfig, document: dict[str, Any], lines: dict[str, str]) -> list[str]:
    """Add the family and the order of the classes; return the conventions that a spec cannot express."""
    document["family"] = named.variant.family
    family = families().get(named.variant.family)
    about = {} if family is None else family.about
    document |= {key: about[key] for key in ("title", "use", "conventions") if key in about}
    lines["family"] = f"{named.variant.family}: {about['title']}" if "title" in about else named.variant.family
    labels = about.get("labels") if named.tag is None else named.tag.labels
    if labels is not None:
        order = label_set(labels)
        if order["classes"] == config.spec.num_classes:
            document["label_set"] = {"name": labels, **order}
            scope = "" if named.tag is not None else " in published weights"
            lines["classes"] = f"{labels}{scope}: {order['classes']:,}, {' '.join(order['order'].split())}"
    return [f"conventions: {' '.join(about['conventions'].split())}"] if "conventions" in about else []


def _aliases_and_tags(name: str, document: dict[str, Any], *, with_tags: bool) -> list[str]:
    """Return a table of the names in other libraries, and one of the published weights; add both to the document."""
    tables = []
    aliases = aliases_of(name)
    document["aliases"] = [asdict(alias) for alias in aliases]
    if aliases:
        rows = [(f"  {alias.alias}", alias.library, alias.difference.removeprefix(", ").removeprefix("; ")) for alias in aliases]
        tables.append(f"names in other libraries:\n{table(rows)}")
    tags = tags_of(name) if with_tags else {}
    if with_tags:
        document["tags"] = [asdict(tag) for tag in tags.values()]
    if tags:
        weights = [
            (f"  {tag.full_name}", f"{tag.num_classes} classes" if tag.num_classes else "features", tag.licence, tag.reported)
            for tag in tags.values()
        ]
        tables.append(f"published weights (default first), with licence and reported ImageNet top-1:\n{table(weights)}")
    return tables


def _file_or_folder(locator: str, facts: Mapping[str, Any]) -> Overview:
    try:
        source = find_source(locator, **facts)
    except InputError as error:
        if not error.details or "unknown" not in error.details:
            raise
        return Overview(*_incomplete_checkpoint(Path(locator), error))
    config = source.config
    if isinstance(source, Checkpoint):
        origin = dict(source.origin)
    else:
        path = Path(locator)
        stated = origin_of(read_variant(path)) if path.suffix == ".toml" else {}
        origin = {**stated, **dict.fromkeys(facts, "stated")}
    document: dict[str, Any] = {**_common(config), "fields": _origins(config, origin)}
    lines = _lines(config)
    if isinstance(source, Checkpoint) and source.path is not None:
        document |= {"dialect": source.dialect, "file": source.path.name, "sha256": sha256_of(source.path)}
        types = sorted({stored.dtype for stored in source.tensors.values()})
        lines |= {"file": f"{source.path.name}, {len(source.tensors)} tensors of {', '.join(types)}, dialect {source.dialect}"}
        lines |= {"sha256": document["sha256"]}
        if source.notes:
            document["notes"] = list(source.notes)
            lines["note"] = with_flags("; ".join(source.notes), source.options)
        if source.unwanted:
            document["left_out"] = list(source.unwanted)
            lines["left out"] = f"{len(source.unwanted)} tensors that are not part of the model, such as {source.unwanted[0]}"
    text = f"{pairs(lines)}\n\n{_fields(config, document['fields'])}"
    if Path(locator).is_dir() and (exports := exports_in(Path(locator))):
        document["exports"], rows = exports_table(Path(locator), exports)
        text += f"\n\nexported files:\n{rows}"
    return Overview(document, text, _code(config))


def _incomplete_checkpoint(path: Path, error: InputError) -> tuple[dict[str, Any], str]:
    """A checkpoint that does not determine every field: the known fields, and those that the user has to state."""
    assert error.details is not None
    known, origin, unknown = (error.details[key] for key in ("known", "origin", "unknown"))
    document = {**error.details, "file": path.name} | ({"sha256": sha256_of(path)} if path.is_file() else {})
    lines = {"file": f"{path.name}, dialect {document['dialect']}"}
    lines |= {"sha256": document["sha256"]} if path.is_file() else {}
    lines |= {"note": "; ".join(error.details["notes"])} if "notes" in error.details else {}
    lines["unknown"] = f"{', '.join(unknown)} ({error.for_command_line().hint})"
    rows = {name: f"{plain(value):<16} {origin.get(name, '')}" for name, value in known.items()}
    return document, f"{pairs(lines)}\n\n{pairs(rows)}"


def _origins(config: ModelConfig, origin: Mapping[str, str]) -> dict[str, str]:
    """Map each field of the spec, in order, to the place that its value comes from."""
    return {name: origin.get(name, "the default") for name in type(config.spec).model_fields}


def _fields(config: ModelConfig, origin: Mapping[str, str]) -> str:
    return pairs({name: f"{plain(getattr(config.spec, name)):<16} {where}" for name, where in origin.items()})


def _exported_file(path: Path) -> Overview:
    about = describe(path)
    document, lines, summary = exported_file(about)
    if about.config is None:
        return Overview(document, pairs(lines))
    ours = _lines(about.config)
    first = {name: lines.pop(name) for name in ("file", "sha256")}
    document |= _common(about.config)
    if summary is not None:
        code = onnx_program(path, about.config, summary, inside=str(about.export.get("include")).startswith("preprocess"))
    else:
        code = _code(about.config)
    return Overview(document, pairs({**first, **ours, **lines}), code)


def _common(config: ModelConfig) -> dict[str, Any]:
    costs = {"parameters": config.spec.params, "macs": config.spec.macs, "tokens": config.spec.tokens}
    return {**config.document()["vit_zoo"], **costs}


def _lines(config: ModelConfig) -> dict[str, str]:
    spec, preprocess = config.spec, config.preprocess
    lines = {"name": config.name}
    if config.random_text:
        lines["weights"] = config.random_text
    if config.source is not None:
        lines["source"] = config.source
    if config.licence is not None:
        lines["licence"] = config.licence
    lines["cost"] = f"{spec.params:,} parameters, {spec.macs / 1e9:.3f} GMACs per image, {spec.tokens} tokens"
    if preprocess is not None:
        size, resize = f"{preprocess.size[0]}x{preprocess.size[1]}", _resize(preprocess)
        normalise = f"mean {plain(preprocess.mean)}, std {plain(preprocess.std)}"
        lines["images"] = f"{size}, {preprocess.interpolation}, {resize}, {normalise}"
    if config.labels is not None:
        more = ", ..." if len(config.labels) > 10 else ""
        lines["labels"] = f"{len(config.labels)}: {', '.join(config.labels[:10])}{more}"
    if config.accuracy is not None:
        lines["top-1"] = str(config.accuracy)
    if config.problem_type is not None:
        if config.is_embedding:
            scores = "the outputs are features, not classes"
        elif config.activation is None:
            scores = "the outputs are the values"
        else:
            scores = f"scores are the {config.activation} of the outputs"
        lines["problem"] = f"{config.problem_type}: {scores}"
    elif spec.num_classes == 1:
        lines["problem"] = "not stated: a value, or yes and no"
    return lines


def _resize(preprocess: Preprocess) -> str:
    resize_to = preprocess.resize_to
    suffix = " as floats" if preprocess.resize_dtype == "float32" else ""
    if resize_to is None:
        return f"squashed{suffix}"
    crop = "centre crop, margin rounded down" if preprocess.crop_rounding == "down" else "centre crop"
    if isinstance(resize_to, tuple):
        return f"squashed to {resize_to[0]}x{resize_to[1]}{suffix}, {crop}"
    return f"shorter edge {resize_to}{suffix}, {crop}"
