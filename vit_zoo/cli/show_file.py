"""Document and text of `vitzoo show` for exported files of any tool, folders of them, and parity reports."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.cli.text import bytes_text, file_size, pairs, report_text, table, verdict_text
from vit_zoo.errors import InputError, RefusedContent, VitzooError
from vit_zoo.files import read_json, sha256_of
from vit_zoo.files.journal import settle
from vit_zoo.formats import FORMATS, describe, format_of
from vit_zoo.formats.artifact import report_path
from vit_zoo.formats.onnx_skeleton import Skeleton, skeleton
from vit_zoo.formats.onnx_summary import summarise

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description
    from vit_zoo.formats.onnx_summary import OnnxSummary

REPORT = ".parity.json"  # the end of the name of a parity report
SUBFOLDER = "onnx"  # of published repositories
MOST = 12  # kinds of operators in the text


def exported_file(about: Description) -> tuple[dict[str, Any], dict[str, str], OnnxSummary | None]:
    """Return the document and the lines of an exported file without its config, and the summary of a graph.

    Raises RefusedContent for a damaged file.
    """
    from vit_zoo.formats.onnx_file import check_companion

    document: dict[str, Any] = {"format": about.format, "file": about.path.name, "sha256": sha256_of(about.path)}
    document["bytes"] = about.path.stat().st_size
    lines = {"file": f"{about.path.name}, {about.format}, {file_size(about.path)}", "sha256": document["sha256"]}
    summary = None
    if about.graph:
        check_companion(about)
        read = skeleton(about.path)
        summary = summarise(about.path, read)
        _graph(summary, document, lines)
        _integer_products(about.path, read, document, lines)
    if about.config is None:
        lines["origin"] = "written by another tool: no vit_zoo metadata"
    else:
        document["export"] = dict(about.export)
        stated_above = ("opset", "outputs") if about.graph else ("selfcheck",)
        lines |= {name: plain(value) for name, value in about.export.items() if name not in stated_above}
    if about.selfcheck is not None:
        lines["self-check"] = _selfcheck(about, document)
    if report_path(about.path).is_file():
        lines["parity"] = _verdict(about.path, document)
    return document, lines, summary


def _selfcheck(about: Description, document: dict[str, Any]) -> str:
    """Add the self-check in a file to the document, and describe it in a line."""
    from vit_zoo.self_check.check import document_in

    try:
        known = document_in(about)
    except RefusedContent as error:
        return f"cannot be read: {error.message}"
    document["selfcheck"] = known.model_dump(mode="json")
    tolerances = sorted({output.tolerance for output in known.outputs})
    names = ", ".join(output.name for output in known.outputs[:MOST])
    more = f" and {len(known.outputs) - MOST} more" if len(known.outputs) > MOST else ""
    return f"of {names}{more}; tolerance {' to '.join(f'{x:g}' for x in dict.fromkeys((tolerances[0], tolerances[-1])))}"


def _graph(summary: OnnxSummary, document: dict[str, Any], lines: dict[str, str]) -> None:
    """Add what a graph declares and contains."""
    document["graph"] = {**asdict(summary), "batch": summary.batch, "batch_is_fixed": summary.batch_is_fixed}
    for what, values in (("input", summary.inputs), ("output", summary.outputs)):
        lines |= {what if len(values) == 1 else f"{what} {i}": str(value) for i, value in enumerate(values)}
    if summary.batch_is_fixed:
        lines["batch"] = f"fixed: {summary.batch}"
    free = list(dict.fromkeys(axis for value in summary.inputs for axis in value.free_axes))
    lines["free axes"] = ", ".join(free) or "none"
    opsets = ", ".join(f"{version}" if name == "ai.onnx" else f"{name} {version}" for name, version in summary.opsets.items())
    lines["opset"] = f"{opsets} (IR version {summary.ir_version})"
    lines |= {"producer": summary.producer} if summary.producer else {}
    kinds = [f"{count} {kind}" for kind, count in summary.operators.items()]
    more = f", and {len(kinds) - MOST} other types" if len(kinds) > MOST else ""
    lines["operators"] = f"{sum(summary.operators.values())}: {', '.join(kinds[:MOST])}{more}"
    lines["precision"] = summary.precision
    stored = [f"{each.values:,} values of {each.type} ({bytes_text(each.bytes)})" for each in summary.weights]
    lines["stored"] = ", ".join(stored) or "no weights"
    for name, size in summary.data_files.items():
        lines[f"weights in {name}"] = bytes_text(size)
    if summary.norm_eps:
        lines["norm epsilon"] = plain([f"{eps:g}" for eps in summary.norm_eps])
    if summary.activations:
        lines["activation"] = plain(summary.activations)
    if summary.faults:
        lines["fault"] = "; ".join(summary.faults)


def _integer_products(path: Path, read: Skeleton, document: dict[str, Any], lines: dict[str, str]) -> None:
    """Add whether every CPU computes the same integers in a quantised file."""
    from vit_zoo.parity.saturation import integer_products

    products = integer_products(path, read)
    if products is not None:
        document["integer_products"] = {**products.model_dump(), "proven": products.proven}
        lines["integers"] = str(products)


def _verdict(path: Path, document: dict[str, Any]) -> str:
    """Add whether the file was verified; return it as text, with the figures if this version can read the report."""
    from vit_zoo.parity.report import read_report

    try:
        report = read_json(report_path(path))
    except VitzooError as error:
        document["parity"] = False
        return f"unknown: the parity report next to the file is {error.message}"
    document["parity"] = report.get("ok") is True and report.get("sha256") == document["sha256"]
    if report.get("sha256") != document["sha256"]:
        return "unknown: the parity report next to the file belongs to another file"
    verdict, known = "verified" if document["parity"] else "FAILED", read_report(path)
    if known is None:
        return verdict
    document["report"] = known.model_dump(mode="json")
    return f"{verdict} against {known.reference}: {known.summary()}"


def parity_report(path: Path) -> tuple[dict[str, Any], str]:
    """Return the document and the text of a parity report. Raises RefusedContent for another JSON file."""
    from vit_zoo.parity.report import ParityReport

    document = read_json(path)
    try:
        report = ParityReport.read(document)
    except ValueError:
        raise RefusedContent("not a parity report that this version of vitzoo can read", where=path) from None
    file = path.parent / path.name.removesuffix(REPORT)
    if not file.is_file():
        state = f"{file.name} is not here"
    else:
        state = "unchanged since the check" if sha256_of(file) == report.sha256 else "CHANGED since the check"
    about = {
        "file": f"{report.file}, {state}", "reference": report.reference, "effort": report.effort,
        "verdict": report.verdict if report.ok else "FAILED", "machine": " ".join(report.machine.values()),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }  # fmt: skip
    warnings = [f"warning: {warning}" for warning in report.warnings]
    parts = [pairs(about), report_text(report), "\n".join(warnings), verdict_text(report.file, report)]
    document = {"state": state, **report.model_dump(mode="json")}
    return document, "\n\n".join(part for part in parts if part)


def graph_of(locator: str) -> list[str]:
    """Return the graph of an ONNX file as text. Raises InputError for anything else."""
    from vit_zoo.formats.graph_text import graph_lines

    path = Path(locator)
    if not path.is_file():
        raise InputError("--graph needs an ONNX file", where=locator)
    about = describe(path)
    if not about.graph:
        raise InputError(f"--graph needs an ONNX file, got a {about.format} file", where=locator)
    return list(graph_lines(skeleton(path)))


def exports_in(folder: Path) -> list[Path]:
    """Return the exported files in a folder, and in the folder for ONNX files of a published repository."""
    suffixes = {f".{row.suffix.rpartition('.')[2]}" for row in FORMATS.values()}
    places = [place for place in (folder, folder / SUBFOLDER) if place.is_dir()]
    for place in places:
        settle(place)
    files = [file for place in places for file in sorted(place.iterdir())]
    return [file for file in files if file.suffix in suffixes and file.is_file() and format_of(file) is not None]


def exports_table(folder: Path, files: list[Path]) -> tuple[list[dict[str, Any]], str]:
    """Return the documents of exported files, and a table. The row of a file that cannot be read has the reason."""
    documents, rows = [], []
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            document, lines, _ = exported_file(describe(file))
        except VitzooError as error:
            documents.append({"file": name, "error": error.message})
            rows.append((name, "", file_size(file), "", error.message))
            continue
        documents.append({**document, "file": name})
        graph = document.get("graph")
        inputs = "" if graph is None else "; ".join(value for key, value in lines.items() if key.split(" ")[0] == "input")
        parity = lines.get("parity", "no report").partition(" against ")[0].partition(":")[0]
        rows.append((name, lines.get("precision", document["format"]), _total(document), parity, inputs))
    return documents, table([("file", "precision", "size", "parity", "input"), *rows])


def _total(document: dict[str, Any]) -> str:
    """Return the size of a file, with the files next to it that have its weights."""
    return bytes_text(document["bytes"] + sum(document.get("graph", {}).get("data_files", {}).values()))


def plain(value: Any) -> str:
    """Return a value as text: lists with commas, true and false as in JSON."""
    if isinstance(value, tuple | list):
        return ", ".join(plain(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
