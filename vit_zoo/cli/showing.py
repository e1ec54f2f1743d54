"""What `show` and `doctor` tell: facts gathered from a name, a file's own words or its headers, and the installation."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo import __version__, registry
from vit_zoo.cli.voice import pairs
from vit_zoo.errors import InputError
from vit_zoo.files import sha256_of, sniff
from vit_zoo.formats import SUFFIX, describe
from vit_zoo.model_config import ModelConfig
from vit_zoo.sources import find_source

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description

RUNTIME = ("click", "numpy", "pillow", "pydantic", "safetensors", "onnx", "onnxruntime")
WITH_TORCH = ("torch", "einops")


def shown(what: str, facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The document and the text for a name, a file or a folder."""
    path = Path(what)
    if what not in registry.variants() and path.is_file() and path.suffix not in (".toml", ".json") and sniff(path) in SUFFIX:
        if facts:
            raise InputError("an exported file states its own facts", where=path)
        return _artifact(describe(path))
    return _model(what, facts)


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
    found["zoo"] = f"{len(registry.variants())} variants"
    found["list, show, predict"] = f"missing: {', '.join(missing)}" if missing else "ready"
    lacking = missing + without_torch
    found["create, export, verify"] = f"missing: {', '.join(lacking)} (pip install vitzoo)" if lacking else "ready"
    return found


def _model(what: str, facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    source = find_source(what, **facts)
    config = source.config
    variant = registry.variants().get(what)
    origin = dict(source.origin)
    if not origin:
        own = {} if variant is None else variant.fields
        origin = {
            f: "the variant" if f in own or variant is None else f"extends {variant.base}" for f in type(config.spec).model_fields
        }
        origin.update(dict.fromkeys(facts, "stated"))
    document: dict[str, Any] = {**_common(config), "fields": origin}
    lines = _lines(config)
    if variant is not None:
        document["family"] = variant.family
        ready = variant.weights is not None
        lines["weights"] = "shipped with this package" if ready else "none here: an architecture"
    if source.path is not None:
        document |= {"dialect": source.dialect, "file": source.path.name, "sha256": sha256_of(source.path)}
        types = sorted({stored.dtype for stored in (source.tensors or {}).values()})
        lines |= {
            "file": f"{source.path.name}, {len(source.tensors or {})} tensors of {', '.join(types)}, dialect {source.dialect}"
        }
        lines |= {"sha256": document["sha256"]}
    values = config.spec.model_dump()
    fields = {name: f"{_plain(values[name]):<16} {origin[name]}" for name in values}
    return document, f"{pairs(lines)}\n\n{pairs(fields)}"


def _artifact(about: Description) -> tuple[dict[str, Any], str]:
    from vit_zoo.formats.artifact import report_path
    from vit_zoo.formats.onnx_file import check_companion

    document: dict[str, Any] = {"format": about.format, "file": about.path.name, "sha256": sha256_of(about.path)}
    lines = {"file": f"{about.path.name}, {about.format}", "sha256": document["sha256"]}
    if about.config is None:
        lines["origin"] = "another tool's file: it does not say what it is"
        return document, pairs(lines)
    document |= {**_common(about.config), "export": dict(about.export)}
    lines |= _lines(about.config)
    lines |= {name: _plain(value) for name, value in about.export.items()}
    if about.format == "onnx":
        check_companion(about)
    if report_path(about.path).is_file():
        lines["parity"] = _verdict(about.path, document)
    return document, pairs(lines)


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
        edge = "squashed" if prepared.resize_to is None else f"shorter edge {prepared.resize_to}, centre crop"
        size = f"{prepared.size[0]}x{prepared.size[1]}"
        lines["images"] = f"{size}, {prepared.interpolation}, {edge}, mean {_plain(prepared.mean)}, std {_plain(prepared.std)}"
    if config.labels is not None:
        more = ", ..." if len(config.labels) > 10 else ""
        lines["labels"] = f"{len(config.labels)}: {', '.join(config.labels[:10])}{more}"
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_plain(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
