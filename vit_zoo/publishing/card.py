"""The model card: what a repository holds, for whom, under which terms, and how well its files compute the model."""

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
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.report import ParityReport
    from vit_zoo.publishing.benchmark import Record
    from vit_zoo.publishing.stage import Staging
    from vit_zoo.registry.pretrained_tags import Tag

Rows = list[tuple[str, ...]]

BEGIN, END = "<!-- vitzoo: made by `vitzoo publish`; text outside these lines is kept -->", "<!-- vitzoo: end -->"
OURS = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
SOURCE = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+)(@[0-9a-f]{{40}})?")
# the identifiers that the Hub's `license` knows among those of weights; any other is named beside `other`
LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0", "cc0-1.0", "openrail", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense", "apple-amlr",
)  # fmt: skip


def card_of(staging: Staging, repo: str, record: Record, theirs: str | None = None) -> str:
    """README.md. `theirs` is the card that the repository has: its words and its front matter's other keys are kept."""
    profile = staging.profile
    config = profile.source.config
    tag = tag_of(config)
    dtypes = [dtype for name, dtype in DTYPES.items() if name in staging.files]
    kept, text = split_card(theirs or "")
    parts = [
        f"# {repo.rpartition('/')[2]}",
        _lead(profile),
        _table(_facts(profile, tag)),
        "## Which client loads it",
        _table([("client", "loads it", "how"), *_clients(profile, dtypes)]),
        "## Files and what they compute",
        "Each was run against the model in float32 and float64 before it was published; the report beside it has every figure.",
        _table(_files(staging.files, record)),
        _measured_on(record),
        *([] if config.preprocess is None else ["## Preprocessing", _preprocessing(config)]),
        "## How to use it",
        *(f"{title}\n\n```{kind}\n{code}\n```" for title, kind, code in snippets_of(profile, repo, dtypes)),
        "## Licence and origin",
        _terms(config),
        "## Citation",
        f"```bibtex\n{citation_of(family_of(config))}\n```",
    ]
    ours = BEGIN + "\n\n" + "\n\n".join(part for part in parts if part) + "\n\n" + END
    if OURS.search(text):
        text = OURS.sub(lambda _: ours, text, count=1)
    else:
        text = f"\n{ours}\n" + (f"\n{text.strip()}\n" if text.strip() else "")
    front = {**kept, **_front(profile, tag, kept)}
    return joined_card(front, text)


def family_of(config: ModelConfig) -> str | None:
    """The family of the zoo that a model is of, by its name or by the repository that it came from."""
    if is_name(config.name):
        return find(config.name).variant.family
    tag = tag_of(config)
    return None if tag is None else find(tag.name).variant.family


def tag_of(config: ModelConfig) -> Tag | None:
    """The published weights that a model came from, where the zoo knows them; unchanged, so that what is reported holds."""
    from vit_zoo.registry.lookup import tags_of

    if config.source is None:
        return None
    for match in SOURCE.finditer(config.source):
        for name in variants():
            for tag in tags_of(name).values():
                if tag.repo == match[1] and tag.num_classes == config.spec.num_classes:
                    return tag
    return None


def _lead(profile: Profile) -> str:
    config = profile.source.config
    spec = config.spec
    kind = "image classification" if profile.classifies else "image features"
    text = f"A Vision Transformer for {kind}: {spec.params:,} parameters, {spec.macs / 1e9:.3g} GMACs for an image."
    if config.random_seed is not None:
        text += "\n\n**RANDOM WEIGHTS**: this model is not trained; its answers mean nothing."
    return text


def _facts(profile: Profile, tag: Tag | None) -> Rows:
    config = profile.source.config
    spec = config.spec
    height, width = spec.image_size
    rows: Rows = [
        ("", ""),
        ("architecture", config.name),
        ("image", f"{height} x {width}, {spec.channels} channels"),
        ("patch", f"{spec.patch_size[0]} x {spec.patch_size[1]}: {spec.tokens} tokens"),
        ("size", f"{spec.dim} wide, {spec.depth} blocks, {spec.heads} heads, MLP {spec.mlp_dim}"),
        ("gives", f"{spec.num_classes:,} classes" if profile.classifies else f"features of width {spec.num_classes or spec.dim}"),
    ]
    if tag is not None and tag.top1 is not None:
        rows.append(("ImageNet-1k top-1", f"{tag.top1} %, as reported by {tag.top1_by}; not measured here"))
    return rows


def _clients(profile: Profile, dtypes: Sequence[str]) -> Rows:
    found: Rows = []
    for client in CLIENTS:
        if client in profile.reasons:
            found.append((client, "no", profile.reasons[client]))
        else:
            found.append((client, "yes", _how(client, profile, dtypes)))
    return found


def _how(client: str, profile: Profile, dtypes: Sequence[str]) -> str:
    match client:
        case "vit_zoo":
            return f"vitzoo {__version__} or later"
        case "timm":
            return "model.safetensors; timm 1.0 or later"
        case "transformers":
            if profile.architecture is None:
                return "as TimmWrapperModel, with timm installed"
            return f"{profile.architecture}, from transformers.safetensors; 4.52 or later (earlier ones load random weights)"
        case "transformers.js":
            return f"onnx/, in {', '.join(dtypes)}"
        case "optimum":
            return "onnx/, optimum-onnx"
    return "onnx/"


def _files(files: Mapping[str, ParityReport], record: Record) -> Rows:
    rows: Rows = [("file", "size", "one image", "against the model")]
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
    where = f"onnxruntime {timed[0].onnxruntime} on the CPU of {timed[0].machine}"
    return f"One image at a time, the median, {where}: a measure, not a promise."


def _preprocessing(config: ModelConfig) -> str:
    assert config.preprocess is not None
    p = config.preprocess
    height, width = p.size
    match p.resize_to:
        case None:
            first = f"resize to {height} x {width}"
        case int(edge):
            first = f"resize the shorter edge to {edge}, centre crop to {height} x {width}"
        case (h, w):
            first = f"resize to {h} x {w}, centre crop to {height} x {width}"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (p.mean, p.std))
    return f"{first.capitalize()} ({p.interpolation}, antialiased); divide by 255; subtract {mean}; divide by {std}."


def _terms(config: ModelConfig) -> str:
    licence = "unknown: nobody stated one" if config.licence is None else _plain(config.licence)
    if config.licence_link is not None:
        licence += f" ({_plain(config.licence_link)})"
    lines = [f"Licence of the weights: {licence}."]
    if config.source is not None:
        linked = SOURCE.sub(lambda m: f"[{m[1]}](https://huggingface.co/{m[1]}){m[2] or ''}", _plain(config.source))
        lines.append(f"Origin: {linked}. vitzoo made the files of this repository from them.")
    return "\n\n".join(lines)


def _plain(words: str) -> str:
    """Somebody else's words, on one line and without markup."""
    return " ".join(words.split()).replace("<", "&lt;")


def _front(profile: Profile, tag: Tag | None, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the front matter that are ours to state."""
    config = profile.source.config
    clients = [name for name in ("timm", "transformers", "transformers.js", "onnx") if name in (*profile.clients, "onnx")]
    tags = list(dict.fromkeys([*_list(kept.get("tags")), "vitzoo", "vision-transformer", *clients]))
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
        front["model-index"] = [_results(config, tag)]
    return front


def _results(config: ModelConfig, tag: Tag) -> dict[str, Any]:
    """What others measured, as the Hub's `model-index` has it."""
    metric = {"type": "accuracy", "value": tag.top1, "name": "top-1 accuracy, %", "verified": False}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagenet-1k", "name": "ImageNet-1k"},
        "metrics": [metric],
        "source": {"name": str(tag.top1_by), "url": f"https://huggingface.co/{tag.repo}"},
    }
    return {"name": config.name, "results": [result]}


def _slug(licence: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", licence.lower()).strip("-")


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _table(rows: Rows) -> str:
    """A Markdown table, the head first; what others wrote cannot leave its cell."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def checked_licence(config: ModelConfig, stated: str | None) -> ModelConfig:
    """The config with the licence that the user states. Raises InputError where the weights have another."""
    if stated is None:
        return config
    if config.licence is not None and _slug(stated) != _slug(config.licence):
        hint = "whoever holds the rights can change it in config.json"
        raise InputError(f"its weights are under {config.licence}: publishing does not change that to {stated}", hint=hint)
    return config if config.licence is not None else config.replace(licence=stated)
