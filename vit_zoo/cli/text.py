"""Results as text for the terminal: tables, sizes, and the results of export, verify and publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from vit_zoo.exporters.export_file import Export
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.report import Divergence, ParityReport
    from vit_zoo.publishing.publish import Published


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as aligned columns; the last column is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def pairs(fields: Mapping[str, str]) -> str:
    """Format names and values, one pair per line."""
    return table([(f"{name}:", value) for name, value in fields.items()])


def size_text(size: Any) -> str:
    """Format a size in pixels: `224` for a square, else `HEIGHTxWIDTH`."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return str(height) if height == width else f"{height}x{width}"


def file_size(path: Path) -> str:
    """Return the size of a file in KiB or MiB."""
    return bytes_text(path.stat().st_size)


def bytes_text(size: int) -> str:
    """Return a number of bytes in KiB or MiB."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def config_text(config: ModelConfig) -> str:
    """Summarise the spec of a model."""
    spec = config.spec
    return pairs({
        "image": f"{spec.image_size[0]}x{spec.image_size[1]}, {spec.channels} channels",
        "patch": f"{spec.patch_size[0]}x{spec.patch_size[1]}, {spec.tokens} tokens",
        "size": f"width {spec.dim}, depth {spec.depth}, {spec.heads} heads of width {spec.dim_head}, MLP width {spec.mlp_dim}",
        "cost": f"{spec.macs / 1e9:.3f} GMACs per image",
        "output": f"{spec.output}, {spec.num_classes} classes" if spec.num_classes else spec.output,
    })  # fmt: skip


def export_text(export: Export) -> str:
    """Describe an exported file in one line: its path, its size, and the result of its check."""
    measured = "" if export.judgement is None else f", but measured: {export.judgement}"
    verdict = f"not verified{measured}" if export.report is None else f"verified: {export.report.summary()}"
    data = "" if export.data is None else f" and {export.data.name} ({file_size(export.data)})"
    return f"{export.path} ({file_size(export.path)}){data}, {verdict}"


def report_text(report: ParityReport) -> str:
    """Describe a parity report: the comparisons, the faults, the first divergence, and what was not checked."""
    parts = [table(report.table())] if report.comparisons else []
    if report.blocks:
        blocks = [
            (str(b.block), "not found" if b.relative is None else f"{b.relative:.1e}", f"{b.allowed:.1e}") for b in report.blocks
        ]
        parts.append(table([("block", "relative", "allowed"), *blocks]))
    if report.fusion:
        kinds = [(o.operator, str(o.count), f"{o.milliseconds:.2f}", f"{100 * o.share:.1f} %") for o in report.fusion]
        parts.append(table([("onnxruntime runs", "count", "ms", "share"), *kinds]))
    if report.integer_products is not None and report.integer_products.saturating:
        layers = [(p.layer, f"{p.pairs:,}", f"{100 * p.share:.2g} %") for p in report.integer_products.saturating]
        parts.append(table([("can saturate on x86 without VNNI", "pairs", "share"), *layers]))
    parts += ["\n".join(f"fault: {fault}" for fault in report.faults)] if report.faults else []
    parts += [_divergence(report.parting)] if report.parting is not None else []
    parts += ["\n".join(f"not checked: {check}" for check in report.skipped)] if report.skipped else []
    return "\n\n".join(parts)


def verdict_text(file: str, report: ParityReport) -> str:
    """Describe the result of a parity report in one line."""
    if not report.ok:
        return f"{file} does not compute {report.reference}: {report.summary()}"
    verb = "approximates" if report.verdict == "approximate" else "computes"
    precision = "" if report.precision == "fp32" else f" in {report.precision}"
    return f"{file} {verb} {report.reference}{precision}: {report.summary()}"


def _divergence(divergence: Divergence) -> str:
    block = "" if divergence.block is None else f"block {divergence.block}, "
    operator = "" if divergence.operator is None else f", operator {divergence.operator}"
    after = "" if divergence.after is None else f"; last agreement: {divergence.after}"
    return f"first divergence: {block}{divergence.place}{operator}{after}"


def published_text(published: Published) -> str:
    """Describe a published or staged repository: its files, the libraries that load it, and what was sent."""
    sent = published.sent
    lines = [table([(name, f"{size:,}") for name, size in published.files.items()])]
    lines.append(f"loads in {', '.join(published.clients)}")
    lines += [f"does not load in {name}: {reason}" for name, reason in published.reasons.items()]
    if sent is None:
        lines.append(f"staged in {published.folder}/, nothing was sent")
    elif sent.added or sent.deleted:
        deleted = f", {len(sent.deleted)} deleted" if sent.deleted else ""
        lines.append(f"{sent.url}: {len(sent.added)} files changed{deleted}")
    else:
        lines.append(f"{sent.url}: already up to date, nothing was sent")
    return "\n".join(lines)
