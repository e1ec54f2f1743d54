"""What `show`, `verify` and `doctor` tell: of a name, of a file by its own words, of a report, of this installation."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo import __version__
from vit_zoo.cli.output import pairs, table
from vit_zoo.errors import InputError
from vit_zoo.files import sha256_of
from vit_zoo.formats import describe
from vit_zoo.loading.locator import ExportedFile, RegistryName, TaggedName, parse_locator
from vit_zoo.loading.source import Checkpoint, find_source
from vit_zoo.model.config import ModelConfig
from vit_zoo.registry.catalog import families, variants
from vit_zoo.registry.configs import config_of, origin_of
from vit_zoo.registry.family_file import read_variant
from vit_zoo.registry.labels import label_set
from vit_zoo.registry.lookup import Named, aliases_of, tags_of

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description
    from vit_zoo.parity.report import ParityReport

RUNTIME = ("click", "numpy", "pillow", "pydantic", "safetensors", "onnx", "onnxruntime")
WITH_TORCH = ("torch", "einops")


def shown(what: str, facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The document and the text for a name, a file or a folder."""
    match parse_locator(what):
        case ExportedFile(path):
            if facts:
                raise InputError("an exported file states its own facts", where=path)
            return _artifact(describe(path))
        case RegistryName(named=named) | TaggedName(named=named):
            return _name(named, facts)
    return _file(what, facts)


def evidence(report: ParityReport) -> str:
    """A report for people: what was compared, the faults, and where they are."""
    parts = [table(report.table())] if report.comparisons else []
    if report.blocks:
        rows = [("block", "relative", "allowed")]
        rows += [
            (str(b.block), "not found" if b.relative is None else f"{b.relative:.1e}", f"{b.allowed:.1e}") for b in report.blocks
        ]
        parts.append(table(rows))
    if report.fusion:
        kinds = [("onnxruntime runs", "count", "ms", "share")]
        kinds += [(o.operator, str(o.count), f"{o.milliseconds:.2f}", f"{100 * o.share:.1f} %") for o in report.fusion]
        parts.append(table(kinds))
    if report.integer_products is not None and report.integer_products.saturating:
        layers = [("can saturate on x86 without VNNI", "pairs", "share")]
        layers += [(p.layer, f"{p.pairs:,}", f"{100 * p.share:.2g} %") for p in report.integer_products.saturating]
        parts.append(table(layers))
    parts += ["\n".join(f"fault: {fault}" for fault in report.faults)] if report.faults else []
    if report.parting is not None:
        p = report.parting
        where = "" if p.block is None else f"block {p.block}, "
        after = "" if p.after is None else f"; last agreement: {p.after}"
        parts.append(f"first divergence: {where}{p.place}{f', {p.operator}' if p.operator else ''}{after}")
    parts += ["\n".join(f"not checked: {what}" for what in report.skipped)] if report.skipped else []
    return "\n\n".join(parts)


def checkup() -> dict[str, Any]:
    """Versions, the zoo, and what is missing."""
    found: dict[str, Any] = {
        "vitzoo": __version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
    }
    for name in (*RUNTIME, *WITH_TORCH):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    missing = [name for name in RUNTIME if found[name] == "not installed"]
    without_torch = [name for name in WITH_TORCH if found[name] == "not installed"]
    found["cpu"] = _cpu()
    if not {"numpy", "onnx", "onnxruntime"} & set(missing):
        found["int8"] = _int8()
    found["zoo"] = f"{len(variants())} variants"
    found["list, show, predict"] = f"missing: {', '.join(missing)}" if missing else "ready"
    lacking = missing + without_torch
    found["create, export, verify"] = f"missing: {', '.join(lacking)} (pip install vitzoo)" if lacking else "ready"
    return found


def _cpu() -> str:
    from vit_zoo.parity.cpu import features

    known = features()
    if known is None:
        return "not reported by this system"
    name, has = known
    return f"{name}: {', '.join(has) or 'no AVX2'}"


def _int8() -> str:
    from vit_zoo.parity.cpu import saturates

    if saturates():
        return (
            "onnxruntime adds pairs of products in 16 bits on this CPU, with saturation: only files that `vitzoo show FILE` "
            "reports as proven give the results that they give elsewhere"
        )
    return "onnxruntime adds products in 32 bits on this CPU: sums are exact"


def _name(named: Named, facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    config = config_of(named.variant, named.tag, **facts)
    origin = {**origin_of(named.variant), **dict.fromkeys(facts, "stated")}
    if named.tag is not None:
        origin |= dict.fromkeys(("num_classes", *named.tag.spec), f"the tag {named.tag.tag}")
    document: dict[str, Any] = {**_common(config), "fields": _origins(config, origin)}
    lines = _lines(config)
    tables = []
    if named.alias is not None:
        lines["called"] = named.alias.sentence
        document["called"] = asdict(named.alias)
    ready = named.variant.weights is not None
    lines["weights"] = "shipped with this package" if ready else "none here: an architecture"
    if named.tag is not None:
        lines["weights"] = f"published, not here: {named.tag.address}, revision {named.tag.revision}, dialect {named.tag.dialect}"
        lines |= {"top-1": named.tag.reported} if named.tag.reported else {}
        document["tag"] = asdict(named.tag)
    tables += _family_of(named, config, document, lines)
    tables += _others(named.variant.name, document, named.tag is None)
    return document, "\n\n".join([pairs(lines), _fields(config, document["fields"]), *tables])


def _family_of(named: Named, config: ModelConfig, document: dict[str, Any], lines: dict[str, str]) -> list[str]:
    """Its family, the conventions that the spec cannot say, and the order of its classes."""
    document["family"] = named.variant.family
    family = families().get(named.variant.family)
    about = {} if family is None else family.about
    document |= {key: about[key] for key in ("title", "conventions") if key in about}
    lines["family"] = f"{named.variant.family}: {about['title']}" if "title" in about else named.variant.family
    labels = about.get("labels") if named.tag is None else named.tag.labels
    if labels is not None:
        order = label_set(labels)
        if order["classes"] == config.spec.num_classes:
            document["label_set"] = {"name": labels, **order}
            whose = "" if named.tag is not None else " in published weights"
            lines["classes"] = f"{labels}{whose}: {order['classes']:,}, {' '.join(order['order'].split())}"
    return [f"conventions: {' '.join(about['conventions'].split())}"] if "conventions" in about else []


def _others(name: str, document: dict[str, Any], published: bool) -> list[str]:
    """What other libraries call it, and which weights of it are published."""
    found = []
    aliases = aliases_of(name)
    document["aliases"] = [asdict(alias) for alias in aliases]
    if aliases:
        rows = [(f"  {alias.alias}", alias.library, alias.difference.removeprefix(", ").removeprefix("; ")) for alias in aliases]
        found.append(f"called elsewhere:\n{table(rows)}")
    tags = tags_of(name) if published else {}
    if published:
        document["tags"] = [asdict(tag) for tag in tags.values()]
    if tags:
        heads = [
            (f"  {tag.full_name}", f"{tag.num_classes} classes" if tag.num_classes else "features", tag.licence, tag.reported)
            for tag in tags.values()
        ]
        found.append(f"published weights, the default first, with their licence and ImageNet top-1 as reported:\n{table(heads)}")
    return found


def _file(what: str, facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    try:
        source = find_source(what, **facts)
    except InputError as error:
        if not error.details or "unknown" not in error.details:
            raise
        return _partly_known(Path(what), error)
    config = source.config
    if isinstance(source, Checkpoint):
        origin = dict(source.origin)
    else:
        path = Path(what)
        stated = origin_of(read_variant(path)) if path.suffix == ".toml" else {}
        origin = {**stated, **dict.fromkeys(facts, "stated")}
    document: dict[str, Any] = {**_common(config), "fields": _origins(config, origin)}
    lines = _lines(config)
    if isinstance(source, Checkpoint) and source.path is not None:
        document |= {"dialect": source.dialect, "file": source.path.name, "sha256": sha256_of(source.path)}
        types = sorted({stored.dtype for stored in source.tensors.values()})
        lines |= {"file": f"{source.path.name}, {len(source.tensors)} tensors of {', '.join(types)}, dialect {source.dialect}"}
        lines |= {"sha256": document["sha256"]}
        if source.unwanted:
            document["left_out"] = list(source.unwanted)
            lines["left out"] = f"{len(source.unwanted)} tensors that are no part of the model, first {source.unwanted[0]}"
    return document, f"{pairs(lines)}\n\n{_fields(config, document['fields'])}"


def _partly_known(path: Path, error: InputError) -> tuple[dict[str, Any], str]:
    """A checkpoint that does not tell everything: what it does tell, and what has to be stated to use it."""
    assert error.details is not None
    known, origin, unknown = (error.details[key] for key in ("known", "origin", "unknown"))
    document = {**error.details, "file": path.name} | ({"sha256": sha256_of(path)} if path.is_file() else {})
    lines = {"file": f"{path.name}, dialect {document['dialect']}"}
    lines |= {"sha256": document["sha256"]} if path.is_file() else {}
    lines["unknown"] = f"{', '.join(unknown)} ({error.hint})"
    rows = {name: f"{_plain(value):<16} {origin.get(name, '')}" for name, value in known.items()}
    return document, f"{pairs(lines)}\n\n{pairs(rows)}"


def _origins(config: ModelConfig, origin: Mapping[str, str]) -> dict[str, str]:
    """Where each field of the spec comes from, in the spec's order."""
    return {name: origin.get(name, "the default") for name in type(config.spec).model_fields}


def _fields(config: ModelConfig, origin: Mapping[str, str]) -> str:
    return pairs({name: f"{_plain(getattr(config.spec, name)):<16} {where}" for name, where in origin.items()})


def _artifact(about: Description) -> tuple[dict[str, Any], str]:
    from vit_zoo.formats.artifact import report_path
    from vit_zoo.formats.onnx_file import check_companion

    document: dict[str, Any] = {"format": about.format, "file": about.path.name, "sha256": sha256_of(about.path)}
    lines = {"file": f"{about.path.name}, {about.format}", "sha256": document["sha256"]}
    if about.graph:
        _integers(about.path, document, lines)
    if about.config is None:
        lines["origin"] = "another tool's file: it does not say what it is"
        return document, pairs(lines)
    document |= {**_common(about.config), "export": dict(about.export)}
    lines |= _lines(about.config)
    lines |= {name: _plain(value) for name, value in about.export.items()}
    if about.graph:
        check_companion(about)
    if report_path(about.path).is_file():
        lines["parity"] = _verdict(about.path, document)
    return document, pairs(lines)


def _integers(path: Path, document: dict[str, Any], lines: dict[str, str]) -> None:
    """Of a quantised file, whether every CPU computes the same integers."""
    from vit_zoo.parity.saturation import integer_products

    products = integer_products(path)
    if products is not None:
        document["integer_products"] = {**products.model_dump(), "proven": products.proven}
        lines["integers"] = str(products)


def _verdict(path: Path, document: dict[str, Any]) -> str:
    from vit_zoo.files import read_json
    from vit_zoo.formats.artifact import report_path

    report = read_json(report_path(path))
    document["parity"] = report.get("ok") is True and report.get("sha256") == document["sha256"]
    if report.get("sha256") != document["sha256"]:
        return "the report beside it is of another file"
    return "verified" if document["parity"] else "FAILED"


def _common(config: ModelConfig) -> dict[str, Any]:
    costs = {"parameters": config.spec.params, "macs": config.spec.macs, "tokens": config.spec.tokens}
    return {**config.document()["vit_zoo"], **costs}


def _lines(config: ModelConfig) -> dict[str, str]:
    spec, prepared = config.spec, config.preprocess
    lines = {"name": config.name}
    if config.random_seed is not None:
        lines["weights"] = f"RANDOM WEIGHTS (seed {config.random_seed})"
    if config.source is not None:
        lines["source"] = config.source
    if config.licence is not None:
        lines["licence"] = config.licence
    lines["cost"] = f"{spec.params:,} parameters, {spec.macs / 1e9:.3f} GMACs an image, {spec.tokens} tokens"
    if prepared is not None:
        edge = _edge(prepared.resize_to)
        size = f"{prepared.size[0]}x{prepared.size[1]}"
        lines["images"] = f"{size}, {prepared.interpolation}, {edge}, mean {_plain(prepared.mean)}, std {_plain(prepared.std)}"
    if config.labels is not None:
        more = ", ..." if len(config.labels) > 10 else ""
        lines["labels"] = f"{len(config.labels)}: {', '.join(config.labels[:10])}{more}"
    return lines


def _edge(resize_to: int | tuple[int, int] | None) -> str:
    if resize_to is None:
        return "squashed"
    if isinstance(resize_to, tuple):
        return f"squashed to {resize_to[0]}x{resize_to[1]}, centre crop"
    return f"shorter edge {resize_to}, centre crop"


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_plain(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
