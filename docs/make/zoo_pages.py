"""Pages of the zoo: a table of all architectures and published checkpoints, a page for each family, and the key maps."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import zoo_plot

from vit_zoo.files.stored import Stored
from vit_zoo.graph.build import build
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.write import inline_size
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry.catalog import families, variants
from vit_zoo.registry.citations import citation_of
from vit_zoo.registry.configs import config_of
from vit_zoo.registry.family_file import Variant
from vit_zoo.registry.lookup import licences_of, tags_of
from vit_zoo.registry.pretrained_tags import Tag
from vit_zoo.weights.dialect import Dialect
from vit_zoo.weights.dialects import DIALECTS

HEAD = ("name", "image", "patch", "tokens", "M params", "GMACs", "classes", "top-1", "licence", "ONNX MB", "source")
BEST = ("name", "image", "M params", "GMACs", "top-1", "licence")  # columns of the table below the plot
NUMERIC = ("image", "patch", "tokens", "M params", "GMACs", "classes", "top-1", "ONNX MB")
MADE = "<!-- made by docs/make; edit the data in zoo/ -->"


@functools.cache
def onnx_megabytes(spec: ViTSpec) -> float:
    """Return the size of the float32 file in 10^6 bytes. The graph is built; weights are counted by their shapes."""
    shapes = spec.shapes().items()
    zeros = {name: Stored("F32", shape, partial(np.broadcast_to, np.float32(0), shape)) for name, shape in shapes}
    return inline_size(build(spec, zeros, GraphOptions())) / 1e6


def pages() -> dict[str, str]:
    text = {"zoo/index.md": _index()}
    for name in families():
        text[f"zoo/{name}.md"] = _family(name)
    text["reference/keys.md"] = _keys()
    return text


def _of(family: str) -> list[Variant]:
    return [variant for variant in variants().values() if variant.family == family]


def _row(variant: Variant, tag: Tag | None) -> tuple[str, ...]:
    spec = config_of(variant, tag).spec
    name = variant.name if tag is None else tag.full_name
    return (
        f"`{name}`",
        _side(spec.image_size),
        _side(spec.patch_size),
        str(spec.tokens),
        f"{spec.params / 1e6:.1f}",
        f"{spec.macs / 1e9:.2f}",
        str(spec.num_classes) if spec.num_classes else "features",
        "" if tag is None or tag.top1 is None else f"{tag.top1:.2f}",
        "" if tag is None else tag.licence,
        f"{onnx_megabytes(spec):.1f}",
        "" if tag is None else _source(tag),
    )


def _source(tag: Tag) -> str:
    url = f"https://huggingface.co/{tag.repo}" if tag.is_on_hub else tag.repo
    return f"[{tag.repo if tag.is_on_hub else tag.file}]({url})"


def _side(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _rows(family: str) -> list[tuple[str, ...]]:
    rows = []
    for variant in _of(family):
        tags = list(tags_of(variant.name).values())
        rows += [_row(variant, tag) for tag in tags] or [_row(variant, None)]
    return rows


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)])


def _points() -> list[zoo_plot.Point]:
    """Return the checkpoints with a reported accuracy."""
    tagged = [(variant, tag) for variant in variants().values() for tag in tags_of(variant.name).values()]
    return [
        zoo_plot.Point(name=tag.full_name, gmacs=config_of(variant, tag).spec.macs / 1e9, top1=tag.top1)
        for variant, tag in tagged
        if tag.top1 is not None
    ]


def _index() -> str:
    """Return the page with one table of all models, which assets/zoo.js makes sortable and filterable."""
    order = ("vit", *(name for name in families() if name != "vit"))
    rows = [(family, *row) for family in order for row in _rows(family)]
    checkpoints = sum(bool(row[11]) for row in rows)
    points = _points()
    shown = {row[1].strip("`"): row for row in rows}
    best = [tuple(shown[point.name][1 + HEAD.index(column)] for column in BEST) for point in zoo_plot.frontier(points)]
    return f"""---
hide: [toc, navigation]
---

# The zoo

{MADE}

The zoo has {len(variants())} architectures in {len(families())} families, and {checkpoints} published checkpoints of them.
A name alone stands for an architecture; a name with a tag stands for weights: `vit_zoo.load("vit_b16.augreg2_in21k_ft_in1k")`.
Sizes without a row have names too, such as `vit_s14_reg4_gap_336`.

Top-1 is the ImageNet-1k accuracy in percent, as reported by whoever published the weights (`vitzoo show NAME` prints the source);
it was not measured here. GMACs are multiply-adds for one image. ONNX MB is the size of the float32 file, computed from its graph
and its weights. `vitzoo list --where 'params<30M and patch_size==16'` queries the same table on the command line.

## Families

{_families(order)}

## All models

<div class="zoo" markdown="0">
<figure class="zoo-plot">
{zoo_plot.plot(points)}<figcaption><output class="zoo-point" aria-hidden="true"></output>Each point is one of the {len(points)}
checkpoints with a reported accuracy. The line connects the most accurate ones for their GMACs.</figcaption>
</figure>
<details><summary>The {len(best)} checkpoints on the line</summary>
{_models(BEST, best, "Most accurate checkpoints for their GMACs")}
</details>
<p class="zoo-controls" hidden><label>Filter <input type="search" placeholder="vit_b 384 apache"></label>
<label>Family <select><option value="">all</option></select></label>
<label><input type="checkbox"> with weights</label> <output role="status"></output></p>
{_models(("family", *HEAD), rows, "All models")}
</div>
"""


def _families(order: Iterable[str]) -> str:
    """Return a table of the families: what each is good for, and the licences of its weights."""
    rows = []
    for name in order:
        about, models = families()[name].about, _of(name)
        tags = sum(len(tags_of(variant.name)) for variant in models)
        licences = ", ".join(licences_of(name))
        rows.append((f"[{about.get('title', name)}]({name}.md)", about.get("use", ""), str(len(models)), str(tags), licences))
    return _table(("family", "good for", "models", "weights", "licences"), rows)


def _models(columns: tuple[str, ...], rows: list[tuple[str, ...]], name: str) -> str:
    """Return a dense table with its own scroll bars."""
    head = "".join(f"<th scope='col'{' data-number' if column in NUMERIC else ''}>{column}</th>" for column in columns)
    body = "\n".join(
        "<tr>" + "".join(_cell(column, text) for column, text in zip(columns, row, strict=True)) + "</tr>" for row in rows
    )
    kind = " zoo-full" if set(HEAD) <= set(columns) else ""  # a phone hides some of its columns
    return f"""<div class="zoo-scroll" tabindex="0" role="region" aria-label="{name}" markdown="0">
<table class="zoo-table{kind}"><thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table>
</div>"""


def _cell(column: str, text: str) -> str:
    if column == "family":
        return f"<td><a href='{text}/'>{text}</a></td>"
    if column == "source" and text:
        name, _, url = text.removeprefix("[").removesuffix(")").partition("](")
        return f"<td><a href='{html.escape(url)}'>{html.escape(name)}</a></td>"
    if text.startswith("`"):
        return f"<td><code>{text.strip('`')}</code></td>"
    kind = " class='number'" if column in NUMERIC else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def _family(name: str) -> str:
    family = families()[name]
    about: dict[str, Any] = family.about
    parts = [f"# {about.get('title', name)}", MADE, _origin(family.file.read_text())]
    if "use" in about:
        parts.append(about["use"])
    if "conventions" in about:
        conventions = " ".join(about["conventions"].split())
        parts += ["## Conventions", conventions[0].upper() + conventions[1:]]
    parts += ["## Models", _models(HEAD, _rows(name), "Models of the family")]
    tagged = {tag.dialect for variant in _of(name) for tag in tags_of(variant.name).values()}
    maps = [dialect for dialect in DIALECTS if dialect.name in tagged and dialect.name not in ("timm", "vitzoo")]
    if tagged:
        parts += ["## Key maps"]
        if "timm" in tagged:
            parts.append("vitzoo uses timm's names and shapes: `blocks.{i}.attn.qkv.weight`.")
        parts += [_key_map(dialect) for dialect in maps]
    parts += ["## Citation", f"```bibtex\n{citation_of(name)}\n```"]
    return "\n\n".join(parts) + "\n"


def _origin(text: str) -> str:
    """Return the comment at the top of the family's file, which gives the origin of the models."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("#:"):
            lines.append(line.removeprefix("#").strip())
    return re.sub(r"([*_])", r"\\\1", " ".join(lines))


def _keys() -> str:
    """Return the page with the tables by which other libraries' files are read."""
    introduction = (
        "This page lists each library's names for our tensors. By these tables its files are read and, where it is a target of "
        "`vitzoo convert`, written. `{i}` is the number of the block. An [einops](https://einops.rocks) pattern turns a foreign "
        "tensor into ours; the reversed pattern is the inverse. Tensors without a line have timm's name, which is also ours."
    )
    maps = [_key_map(dialect) for dialect in DIALECTS if any(rule.theirs != (rule.ours,) for rule in dialect.rules)]
    return "\n\n".join([f"# Key maps\n\n{MADE}", introduction, *(each.replace("### ", "## ", 1) for each in maps)]) + "\n"


def _key_map(dialect: Dialect) -> str:
    """Return the table by which a dialect is read and written, without the names that are the same."""
    rows = []
    for rule in dialect.rules:
        if rule.theirs == (rule.ours,) and rule.pattern is None:
            continue
        theirs = "<br>".join(f"`{name}`" for name in rule.theirs)
        rows.append((f"`{rule.ours}`", theirs, f"`{rule.pattern}`" if rule.pattern else ""))
    return f"### {dialect.name}\n\n{_table(('ours', 'theirs', 'rearranged'), rows)}"
