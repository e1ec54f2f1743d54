"""Page of coverage: every published ViT of timm, every class of transformers for our families, every tower of open_clip.

The lists are those of the installed libraries. A row says which name a model has here, that its files are read, or why not.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import vit_zoo
from vit_zoo.errors import VitzooError
from vit_zoo.registry.aliases import read_aliases
from vit_zoo.registry.catalog import variants, zoo
from vit_zoo.registry.lookup import tags_of
from vit_zoo.registry.other_architectures import reason_by_name
from vit_zoo.weights.configs import hf
from vit_zoo.weights.configs.timm_architectures import find

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from support import peers

PAGE = "coverage.md"
MODULES = ("vision_transformer", "deit", "eva", "beit", "naflexvit")  # of timm, with its plain ViTs
CHECKPOINT = "read as a checkpoint"
TEXTS = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SIZES = TEXTS | {"image_size": 16, "patch_size": 8}
INTRODUCTION = (
    "timm {}, transformers {} and open_clip {} list the models below. For each, this page says which name it has here, "
    "that its files are read, or why they are not."
)
SUMMARY = """| library | listed | here |
|---|---|---|
| timm, published weights of plain ViTs | {tags} | {named} by name, {read} in all: {share:.1%} |
| transformers, classes of our families | {classes} | {classes_read} |
| open_clip, image towers | {open_clip} | {towers} |

Models of other architectures, such as Swin, Hiera, SAM's encoder and hybrids with convolutions, are refused by name, with one
line that says how they differ."""
# of transformers: what a class has besides the encoder, which is left out or returned apart
LEFT_OUT = {
    "Siglip2ForImageClassification": "the classifier is not read: pass its vision_model",
    "Aimv2VisionModel": "read with `use_head=False`: its attention pooling does not project the query",
    "Aimv2Model": "its attention pooling does not project the query: pass the tower without it",
    "MaskedImageModeling": "the decoder of masked patches is not read: pass the encoder",
    "PreTraining": "the decoder is not read: pass the encoder",
    "SemanticSegmentation": "its head for segmentation is not read: pass the encoder",
    "Encoder": "an encoder without its embeddings",
    "Backbone": "read; its feature maps are outputs here, block.N.map",
}


def timm_rows() -> dict[str, list[tuple[str, str]]]:
    """Return for each of timm's models its tags, each with our name, `CHECKPOINT`, or the reason why it is not read."""
    timm = peers.timm
    names = {tag.repo: tag.full_name for name in variants() for tag in tags_of(name).values()}
    aliases = read_aliases(zoo().folders)[0]
    rows: dict[str, list[tuple[str, str]]] = {}
    for module in MODULES:
        for model in timm.list_models(module=module):
            for published in timm.list_models(f"{model}.*", pretrained=True):
                repo = timm.get_pretrained_cfg(published).hf_hub_id
                if repo in names:
                    verdict = f"`{names[repo]}`"
                elif model in aliases:
                    verdict = f"`{aliases[model].name}`, other weights"
                else:
                    verdict = CHECKPOINT if find(model) is not None else reason_by_name(model) or ""
                rows.setdefault(model, []).append((published.partition(".")[2], verdict))
    return rows


def transformers_rows() -> dict[str, dict[str, str]]:
    """Return for each model type of our families its classes, each with `read` or the reason why not, from a small model."""
    transformers = peers.transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows: dict[str, dict[str, str]] = {}
    for kind in (*hf.DEFAULTS, *hf.TOWERS):
        config = transformers.CONFIG_MAPPING[kind]
        code = importlib.import_module(config.__module__.replace("configuration_", "modeling_"))
        for name, cls in vars(code).items():
            if not inspect.isclass(cls) or cls.__module__ != code.__name__ or not issubclass(cls, transformers.PreTrainedModel):
                continue
            if cls.config_class is config and not name.endswith("PreTrainedModel"):
                rows.setdefault(kind, {})[name] = _verdict(cls, config)
    return rows


def _verdict(cls: Any, config: Any) -> str:
    left_out = next((text for end, text in LEFT_OUT.items() if cls.__name__.endswith(end)), None)
    if left_out is not None:
        return left_out
    settings: dict[str, Any] = SIZES
    if hasattr(config(), "vision_config"):
        settings = {"vision_config": SIZES, "text_config": TEXTS}
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls(config(**settings)).save_pretrained(folder)
            vit_zoo.load(folder)
    except VitzooError as error:
        return error.message
    return "read"


def open_clip_rows() -> dict[str, str]:
    """Return our name for each config of open_clip, `CHECKPOINT`, or the reason why its image tower is not read."""
    open_clip = peers.open_clip
    aliases = read_aliases(zoo().folders)[0]
    rows = {}
    for name in sorted(open_clip.list_models()):
        tower = open_clip.get_model_config(name)["vision_cfg"]
        model = tower.get("timm_model_name", "").partition(".")[0]
        if name in aliases:
            rows[name] = f"`{aliases[name].name}`"
        elif model:
            alias = aliases.get(model)
            known = find(model) is not None
            rows[name] = f"`{alias.name}`" if alias else CHECKPOINT if known else reason_by_name(model) or ""
        elif isinstance(tower.get("layers"), list):
            rows[name] = "a ResNet"
        elif tower.get("attentional_pool"):
            rows[name] = "its pooling has several queries"
        else:
            rows[name] = CHECKPOINT
    return rows


def pages() -> dict[str, str]:
    timm, transformers, open_clip = timm_rows(), transformers_rows(), open_clip_rows()
    tags = [verdict for rows in timm.values() for _, verdict in rows]
    named = sum(verdict.startswith("`") for verdict in tags)
    read = named + tags.count(CHECKPOINT)
    towers = sum(verdict.startswith("`") or verdict == CHECKPOINT for verdict in open_clip.values())
    classes = [verdict for rows in transformers.values() for verdict in rows.values()]
    head = "| {} | {} |\n|---|---|"
    lines = [
        "# Coverage",
        "<!-- made by docs/make from the installed libraries -->",
        INTRODUCTION.format(*(library.__version__ for library in (peers.timm, peers.transformers, peers.open_clip))),
        SUMMARY.format(
            tags=len(tags),
            named=named,
            read=read,
            share=read / len(tags),
            classes=len(classes),
            classes_read=classes.count("read"),
            open_clip=len(open_clip),
            towers=towers,
        ),
        "## timm",
        head.format("model and tags", "here"),
    ]
    for model, rows in timm.items():
        groups: dict[str, list[str]] = {}
        for tag, verdict in rows:
            groups.setdefault(verdict, []).append(tag)
        lines += [f"| `{model}`: {', '.join(tags)} | {verdict} |" for verdict, tags in groups.items()]
    lines += ["## transformers", head.format("class", "here")]
    lines += [f"| {kind}: `{name}` | {verdict} |" for kind, rows in transformers.items() for name, verdict in rows.items()]
    lines += ["## open_clip", head.format("config", "here")]
    lines += [f"| {name} | {verdict} |" for name, verdict in open_clip.items()]
    return {PAGE: _joined(lines)}


def _joined(lines: list[str]) -> str:
    """Join paragraphs by empty lines, and rows of one table by none."""
    text = ""
    for line in lines:
        inside = line.startswith("| ") and text.endswith("|") and not line.startswith("| library")
        text += ("\n" if inside else "\n\n" if text else "") + line
    return text + "\n"
