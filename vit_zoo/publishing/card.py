"""Model card of a repository: supported clients, files with their parity, preprocessing, usage, licence and citation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vit_zoo import __version__
from vit_zoo.errors import InputError
from vit_zoo.hub.download import PREFIX
from vit_zoo.hub.front_matter import joined_card, split_card
from vit_zoo.publishing.clients import CLIENTS, DTYPES, Profile
from vit_zoo.publishing.snippets import snippets_of
from vit_zoo.registry.catalog import variants
from vit_zoo.registry.citations import citation_of
from vit_zoo.registry.lookup import find, is_name

if TYPE_CHECKING:
    from vit_zoo.model.config import Accuracy, ModelConfig
    from vit_zoo.parity.report import ParityReport
    from vit_zoo.publishing.benchmark import Record
    from vit_zoo.publishing.stage import Staging
    from vit_zoo.registry.pretrained_tags import Tag

Rows = list[tuple[str, ...]]

BEGIN, END = "<!-- vitzoo: made by `vitzoo publish`; text outside these lines is kept -->", "<!-- vitzoo: end -->"
OURS = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
SOURCE = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+)(@[0-9a-f]{{40}})?")
KINDS = {"multi_label_classification": "multi-label image classification", "regression": "image regression"}
# licences of weights that the Hub's `license` field accepts; any other goes to `license_name`, with `license: other`
LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0", "cc0-1.0", "openrail", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense", "apple-amlr",
)  # fmt: skip


SELFCHECK = (
    "Each ONNX file contains a self-check. `python onnx/selfcheck.py onnx/model.onnx` runs it on your machine or device, with "
    "numpy and onnxruntime alone: it compares the outputs for two test images with those at the export. `selfcheck.mjs` does so "
    "in JavaScript."
)


def card_of(staging: Staging, repo: str, record: Record, existing: str | None = None) -> str:
    """Return the text of README.md. Text and front matter of the `existing` card that are not vitzoo's are kept."""
    profile = staging.profile
    config = profile.source.config
    # the head of a tag's accuracy is that of its weights
    tag = None if config.accuracy is not None or config.spec.cosine_head else tag_of(config)
    dtypes = [dtype for name, dtype in DTYPES.items() if name in staging.files]
    other_keys, text = split_card(existing or "")
    parts = [
        f"# {repo.rpartition('/')[2]}",
        _introduction(profile),
        _table(_facts(profile, tag)),
        "## Supported clients",
        _table([("client", "supported", "how"), *_clients(profile, dtypes)]),
        "## Files",
        "Each file was compared with the model in float32 and float64 before publication. Its `.parity.json` has all figures.",
        _table(_files(staging.files, record)),
        _measured_on(record),
        *([SELFCHECK] if staging.checkers else []),
        *([] if config.preprocess is None else ["## Preprocessing", _preprocessing(profile)]),
        "## Usage",
        *(f"{title}\n\n```{kind}\n{code}\n```" for title, kind, code in snippets_of(profile, repo, dtypes)),
        "## Licence and origin",
        _licence_and_origin(config),
        "## Citation",
        f"```bibtex\n{citation_of(family_of(config))}\n```",
    ]
    section = BEGIN + "\n\n" + "\n\n".join(part for part in parts if part) + "\n\n" + END
    if OURS.search(text):
        text = OURS.sub(lambda _: section, text, count=1)
    else:
        text = f"\n{section}\n" + (f"\n{text.strip()}\n" if text.strip() else "")
    front = {**other_keys, **_front_matter(profile, tag, other_keys)}
    return joined_card(front, text)


def family_of(config: ModelConfig) -> str | None:
    """Return the family of a model in the zoo, from its name or from the repository that it came from."""
    if is_name(config.name):
        return find(config.name).variant.family
    tag = tag_of(config)
    return None if tag is None else find(tag.name).variant.family


def tag_of(config: ModelConfig) -> Tag | None:
    """Return the published weights that a model came from, if the zoo has them and the classes are unchanged.

    Their reported accuracy then applies to the model.
    """
    from vit_zoo.registry.lookup import tags_of

    if config.source is None:
        return None
    for match in SOURCE.finditer(config.source):
        for name in variants():
            for tag in tags_of(name).values():
                if tag.repo == match[1] and tag.num_classes == config.spec.num_classes:
                    return tag
    return None


def _introduction(profile: Profile) -> str:
    config = profile.source.config
    spec = config.spec
    kind = KINDS.get(config.problem_type or "", "image classification") if profile.classifies else "image features"
    text = f"A Vision Transformer for {kind}: {spec.params:,} parameters, {spec.macs / 1e9:.3g} GMACs per image."
    if config.random_part is not None:
        text += "\n\n**RANDOM WEIGHTS in the classifier**: it is new and not trained; its predictions are meaningless."
    elif config.random_seed is not None:
        text += "\n\n**RANDOM WEIGHTS**: this model is not trained; its predictions are meaningless."
    return text


def _facts(profile: Profile, tag: Tag | None) -> Rows:
    config = profile.source.config
    spec = config.spec
    height, width = spec.image_size
    rows: Rows = [
        ("", ""),
        ("architecture", config.name),
        ("input", f"{height} x {width}, {spec.channels} channels"),
        ("patch size", f"{spec.patch_size[0]} x {spec.patch_size[1]}, {spec.tokens} tokens"),
        ("dimensions", f"width {spec.dim}, {spec.depth} blocks, {spec.heads} heads, MLP width {spec.mlp_dim}"),
        (
            "output",
            _output(config) if profile.classifies else f"features of width {spec.num_classes or spec.dim}",
        ),
    ]
    if tag is not None and tag.top1 is not None:
        rows.append(("ImageNet-1k top-1", f"{tag.top1} %, as reported by {tag.top1_by}; not measured here"))
    if config.accuracy is not None:
        rows.append(("top-1 accuracy", _plain(f"{config.accuracy}, measured by vitzoo")))
    return rows


def _output(config: ModelConfig) -> str:
    """Return what the outputs of a classifier or a regression stand for."""
    count = config.spec.num_classes
    if config.problem_type == "regression":
        return f"{count:,} value{'s' if count > 1 else ''}, as they are (problem_type regression)"
    if config.activation == "sigmoid":
        what = f"{count:,} classes, of which several can apply to an image" if count > 1 else "yes or no"
        return f"{what}: the sigmoid of each output is a probability (problem_type {config.problem_type})"
    return f"{count:,} classes"


def _clients(profile: Profile, dtypes: Sequence[str]) -> Rows:
    rows: Rows = []
    for client in CLIENTS:
        if client in profile.reasons:
            rows.append((client, "no", profile.reasons[client]))
        else:
            rows.append((client, "yes", _usage(client, profile, dtypes)))
    return rows


def _usage(client: str, profile: Profile, dtypes: Sequence[str]) -> str:
    match client:
        case "vit_zoo":
            return f"vitzoo {__version__} or later"
        case "timm":
            return "model.safetensors; timm 1.0 or later"
        case "transformers":
            if profile.architecture is None:
                return "as TimmWrapperModel, with timm installed"
            return f"{profile.architecture}, from transformers.safetensors; 4.52 or later (earlier versions load random weights)"
        case "transformers.js":
            return f"onnx/, in {', '.join(dtypes)}"
        case "optimum":
            return "onnx/, optimum-onnx"
    return "onnx/"


def _files(files: Mapping[str, ParityReport], record: Record) -> Rows:
    rows: Rows = [("file", "size", "time per image", "difference from the model")]
    for name, report in sorted(files.items()):
        measured = record.files.get(name)
        size = "" if measured is None else f"{measured.bytes / 1e6:,.1f} MB"
        speed = "" if measured is None or measured.milliseconds is None else f"{measured.milliseconds:g} ms"
        rows.append((f"`{name}`", size, speed, report.summary()))
    return rows


def _measured_on(record: Record) -> str:
    timed = [m for m in record.files.values() if m.milliseconds is not None]
    if not timed:
        return ""
    where = f"onnxruntime {timed[0].onnxruntime} on the CPU ({timed[0].machine})"
    return f"Times are medians at batch size 1, with {where}; other machines differ."


def _preprocessing(profile: Profile) -> str:
    p = profile.source.config.preprocess
    assert p is not None
    height, width = p.size
    match p.resize_to:
        case None:
            first = f"resize to {height} x {width}"
        case int(edge):
            first = f"resize the shorter edge to {edge}, centre crop to {height} x {width}"
        case (h, w):
            first = f"resize to {h} x {w}, centre crop to {height} x {width}"
    if p.crop_can_differ:
        first += ", half of its margin rounded down" if p.crop_rounding == "down" else ", half of its margin rounded to even"
    kind = "antialiased, in floats" if p.resize_dtype == "float32" else "antialiased"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (p.mean, p.std))
    text = f"{first.capitalize()} ({p.interpolation}, {kind}); divide by 255; subtract {mean}; divide by {std}."
    if "image_processor_type" in profile.config:
        text += "\n\nIn transformers, timm prepares the images (`pip install timm`): no processor of its own rounds so."
    return text


def _licence_and_origin(config: ModelConfig) -> str:
    licence = "unknown" if config.licence is None else _plain(config.licence)
    if config.licence_link is not None:
        licence += f" ({_plain(config.licence_link)})"
    lines = [f"Licence of the weights: {licence}."]
    if config.source is not None:
        linked = SOURCE.sub(lambda m: f"[{m[1]}](https://huggingface.co/{m[1]}){m[2] or ''}", _plain(config.source))
        lines.append(f"Origin: {linked}. vitzoo converted these weights to the files of this repository.")
    return "\n\n".join(lines)


def _plain(words: str) -> str:
    """Return foreign text on one line, with HTML escaped."""
    return " ".join(words.split()).replace("<", "&lt;")


def _front_matter(profile: Profile, tag: Tag | None, existing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the front matter that vitzoo writes."""
    config = profile.source.config
    clients = [name for name in ("timm", "transformers", "transformers.js", "onnx") if name in (*profile.clients, "onnx")]
    tags = list(dict.fromkeys([*_list(existing.get("tags")), "vitzoo", "vision-transformer", *clients]))
    front: dict[str, Any] = {
        "library_name": "transformers" if profile.architecture else "timm" if "timm" in profile.clients else "vitzoo",
        "pipeline_tag": "image-classification" if profile.classifies else "image-feature-extraction",
        "tags": tags,
    }
    if config.licence is not None:
        name = _slug(config.licence)
        front |= {"license": name} if name in LICENCES else {"license": "other", "license_name": name}
        if config.licence_link is not None:
            front["license_link"] = config.licence_link
    bases = list(dict.fromkeys(match[1] for match in SOURCE.finditer(config.source or "")))
    if bases:
        front["base_model"] = bases[:1]
    if tag is not None and tag.top1 is not None:
        front["model-index"] = [_reported_accuracy(config, tag)]
    if config.accuracy is not None:
        front["model-index"] = [_measured_accuracy(config, config.accuracy)]
    return front


def _reported_accuracy(config: ModelConfig, tag: Tag) -> dict[str, Any]:
    """Return the accuracy that others measured, as an entry of the Hub's `model-index`."""
    metric = {"type": "accuracy", "value": tag.top1, "name": "top-1 accuracy, %", "verified": False}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagenet-1k", "name": "ImageNet-1k"},
        "metrics": [metric],
        "source": {"name": str(tag.top1_by), "url": f"https://huggingface.co/{tag.repo}"},
    }
    return {"name": config.name, "results": [result]}


def _measured_accuracy(config: ModelConfig, accuracy: Accuracy) -> dict[str, Any]:
    """Return the accuracy that vitzoo measured, as an entry of the Hub's `model-index`."""
    metric = {"type": "accuracy", "value": round(100 * accuracy.top1, 2), "name": "top-1 accuracy, %", "verified": False}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagefolder", "name": f"{accuracy.dataset} ({accuracy.split})"},
        "metrics": [metric],
    }
    return {"name": config.name, "results": [result]}


def _slug(licence: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-")


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _table(rows: Rows) -> str:
    """Return a Markdown table; the first row is the head. Foreign text is escaped so that it stays in its cell."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def checked_licence(config: ModelConfig, stated: str | None) -> ModelConfig:
    """Return the config with the licence that the user states. Raises InputError if the weights have another."""
    if stated is None:
        return config
    if config.licence is not None and _slug(stated) != _slug(config.licence):
        hint = "the rights holder can change it in config.json"
        raise InputError(f"the licence of the weights is {config.licence}; publishing cannot change it to {stated}", hint=hint)
    return config if config.licence is not None else config.replace(licence=stated)
