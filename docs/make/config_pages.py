"""The page that lists what each key of the libraries' config files does, from the tables by which they are read."""

from __future__ import annotations

from vit_zoo.weights.configs import hf, open_clip, timm
from vit_zoo.weights.configs.keys import Key, Keys

HEAD = """# Config keys

<!-- made by docs/make; edit the tables in vit_zoo/weights/configs/ -->

This page lists the keys of the config files that are read next to a checkpoint. Each key is *read* as the named fields,
has *no effect* on the outputs, or is *refused* with exit code 7 unless it has one of the values that a plain ViT has. A key
that is not listed is refused by name: its meaning is not known.

Settings of an image processor that are refused or not listed do not stop a model from being loaded. It then has no
preprocessing, and a line on stderr says so.
"""
SECTIONS: tuple[tuple[str, str, Keys], ...] = (
    ("transformers", "`config.json`, every model type", hf.BASE),
    *(("transformers", f"`config.json`, `model_type` `{kind}`", keys) for kind, keys in hf.KEYS.items()),
    ("transformers", "`config.json`, `model_type` `clip`", hf.CLIP_TOWERS),
    ("transformers", "`config.json`, `model_type` `siglip` and `siglip2`", hf.TWO_TOWERS),
    ("transformers", "`preprocessor_config.json`, or `image_processor` in `processor_config.json`", hf.PROCESSOR),
    ("timm", "`config.json`", timm.TOP),
    ("timm", "`pretrained_cfg`", timm.PRETRAINED),
    ("timm", "`model_args` of VisionTransformer", timm.VIT_ARGUMENTS),
    ("timm", "`model_args` of Eva", timm.EVA_ARGUMENTS),
    ("timm", "`model_args` of NaFlexVit", timm.NAFLEX_ARGUMENTS),
    ("open_clip", "`open_clip_config.json`", open_clip.PARTS),
    ("open_clip", "`model_cfg`", open_clip.MODEL),
    ("open_clip", "`vision_cfg` of open_clip's own towers", open_clip.OWN),
    ("open_clip", "`norm_kwargs`", open_clip.NORM_ARGUMENTS),
    ("open_clip", "`act_kwargs`", open_clip.ACT_ARGUMENTS),
    ("open_clip", "`vision_cfg` of timm's towers", open_clip.TIMM_TOWER),
    ("open_clip", "`preprocess_cfg`", open_clip.PREPROCESS),
)


def pages() -> dict[str, str]:
    """Return the text of the page, by its path in docs."""
    lines, library = [HEAD], ""
    for name, title, keys in SECTIONS:
        if name != library:
            lines.append(f"## {name}\n")
            library = name
        lines.append(f"### {title}\n\n| key | effect |\n|---|---|\n{_rows(keys)}\n")
    return {"reference/configs.md": "\n".join(lines)}


def _rows(keys: Keys) -> str:
    """One row for all keys that do the same."""
    by_effect: dict[str, list[str]] = {}
    for name, key in keys.items():
        by_effect.setdefault(_effect(key), []).append(f"`{name}`")
    return "\n".join(f"| {', '.join(names)} | {effect} |" for effect, names in by_effect.items())


def _effect(key: Key) -> str:
    match key.effect:
        case "read":
            return f"read: {key.note}"
        case "none":
            return f"no effect: {key.note}"
    values = ", ".join(f"`{value!r}`" for value in key.values)
    return f"refused unless {values} or null" if values else "refused unless null"
