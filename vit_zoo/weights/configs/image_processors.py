"""Image preparation in the configs of timm and transformers, to and from `Preprocess`.

Readers return None for what `Preprocess` does not express exactly, and for classes that are not listed here.

Sources: timm 1.0.31, data/transforms_factory.py; transformers 5.23, image_processing_backends.py and
models/*/image_processing_*.py. With margins of 3, 7, 11, ... pixels, the centre crops of the two differ by one pixel:
transformers rounds half of the margin down, timm to even. transformers' only class that crops as timm does is TimmWrapper,
which runs timm's transforms from the `pretrained_cfg` in config.json. Its DINOv3 alone resizes floats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from vit_zoo.errors import NotRepresentable, Option, RefusedContent
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.weights.configs.keys import Keys, read, read_keys
from vit_zoo.weights.configs.values import (
    DEVIATIONS,
    EDGES,
    FLAG,
    MAX_SIDE,
    MEANS,
    PAIR,
    SECTION,
    SIDE,
    SIDES,
    TEXT,
    Kind,
    either,
    number,
    optional,
    whole,
    wholes,
)

RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
HALF, IMAGENET = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VIT = {"size": {"height": 224, "width": 224}, "resample": 2, "do_center_crop": False, "image_mean": HALF, "image_std": HALF}
CENTRE = {"crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "resample": 3}
# what the classes of transformers do if their config does not state it
CLASSES: dict[str, dict[str, Any]] = {
    "ViT": VIT,
    "DeiT": {**VIT, **CENTRE, "size": {"height": 256, "width": 256}},
    "Bit": {**CENTRE, "size": {"shortest_edge": 224}, "image_mean": CLIP[0], "image_std": CLIP[1]},
    "CLIP": {**CENTRE, "size": {"shortest_edge": 224}, "image_mean": CLIP[0], "image_std": CLIP[1]},
    "Siglip": {**VIT, "resample": 3},
    "DINOv3ViT": {**VIT, "image_mean": IMAGENET, "image_std": (0.229, 0.224, 0.225)},
    "TimmWrapper": {},  # as `to_hf` writes it
    "": {},  # not stated, as in old files: the model's own class, which the file does not name
}
SQUASHING = ("ViT", "DeiT", "DINOv3ViT")  # a `size` of one number is both edges; for the other classes it is the shorter one
CLASS = re.compile(r"(\w*?)(?:ImageProcessor(?:Fast|Pil)?|FeatureExtractor)?")
ACCEPT = Option("accept", "['preprocess']", "--accept preprocess")
ROUNDS_TO_EVEN = "rounds half of the margin of a crop to even, and not down: its crop can begin one pixel further"
CLOSE = 1e-6  # relative tolerance for a rescale_factor that was written with few digits


def _stated(kind: Kind, *names: str) -> Keys:
    return dict.fromkeys(names, read("preprocess", optional(kind)))


# what is read of a processor's config, of timm's `pretrained_cfg`, and of the arguments of its models
HF_KEYS: Keys = {
    **_stated(TEXT, "image_processor_type", "feature_extractor_type"),
    **_stated(FLAG, "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad", "default_to_square"),
    **_stated(either(SIDE, PAIR, EDGES), "size", "crop_size"),
    **_stated(whole(0, 5), "resample"),
    **_stated(number(0, 1000), "rescale_factor"),
    **_stated(MEANS, "image_mean"),
    **_stated(DEVIATIONS, "image_std"),
}
TIMM_KEYS: Keys = {
    **_stated(wholes(3, 1, MAX_SIDE), "input_size"),
    **_stated(TEXT, "interpolation", "crop_mode"),
    **_stated(number(0.00001, 1000), "crop_pct"),
    **_stated(MEANS, "mean"),
    **_stated(DEVIATIONS, "std"),
    **_stated(FLAG, "fixed_input_size"),
}
TIMM_SECTIONS: Keys = _stated(SECTION, "pretrained_cfg", "model_args")
TIMM_SIZES: Keys = {**_stated(SIDES, "img_size"), **_stated(FLAG, "dynamic_img_size", "strict_img_size")}


def of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    """Read `pretrained_cfg`, or the same keys at the top level of an older config."""
    return _or_none(_of_timm, config)


def _or_none(read_config: Callable[[Mapping[str, Any]], Preprocess | None], config: Mapping[str, Any]) -> Preprocess | None:
    """The result of a reader, or None where the config has values of other types than its library writes."""
    try:
        return read_config(config)
    except (RefusedContent, ValidationError):
        return None


def _of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    sections = read_keys(config, TIMM_SECTIONS, where=None)
    cfg = read_keys(sections.get("pretrained_cfg", config), TIMM_KEYS, where=None)
    if not {"input_size", "mean", "std"} <= set(cfg):
        return None
    fixed = _fixed_size(sections.get("model_args", {})) if cfg.get("fixed_input_size") else None
    height, width = fixed or cfg["input_size"][1:]
    share = cfg.get("crop_pct", 0.875)
    if not 0 < share <= 1:
        return None
    edges = math.floor(height / share), math.floor(width / share)
    match cfg.get("crop_mode", "center"):
        case "squash":
            resize_to: Any = None if edges == (height, width) else edges
        case "center" if height == width:
            resize_to = edges[0]
        case _:
            return None
    return _valid(
        size=(height, width), resize_to=resize_to, interpolation=cfg.get("interpolation"), mean=cfg["mean"], std=cfg["std"]
    )


def _fixed_size(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the image size of the model's arguments, which timm's `_parse_model_cfg` puts in the place of `input_size`."""
    stated = read_keys(arguments, TIMM_SIZES, where=None)
    free = stated.get("dynamic_img_size") or stated.get("strict_img_size") is False
    return None if free else stated.get("img_size")


def to_timm(preprocess: Preprocess) -> dict[str, Any]:
    """The keys of `pretrained_cfg`. Raises NotRepresentable for a resize or a crop that timm cannot express."""
    height, width = preprocess.size
    if (preprocess.crop_rounding == "down" and preprocess.crop_can_differ) or preprocess.resize_dtype == "float32":
        cause = "resizes bytes, and not floats" if preprocess.resize_dtype == "float32" else ROUNDS_TO_EVEN
        raise NotRepresentable(f"timm {cause}", hint=f"{ACCEPT} writes timm's own preprocessing", options=[ACCEPT])
    match preprocess.resize_to:
        case None:
            mode, share = "squash", 1.0
        case int(edge) if height == width:
            mode, share = "center", _share(height, edge)
        case (tall, wide) if tall * width == wide * height:
            mode, share = "squash", _share(height, tall)
        case other:
            raise NotRepresentable(f"timm cannot resize to {other} for a crop of {height}x{width}")
    keys = {"mean": list(preprocess.mean), "std": list(preprocess.std), "interpolation": preprocess.interpolation}
    return {**keys, "crop_pct": share, "crop_mode": mode}


def _share(side: int, edge: int) -> float:
    """The `crop_pct` with the fewest digits from which timm, which rounds down, computes this edge."""
    for digits in range(1, 17):
        share = round(side / edge, digits)
        if 0 < share <= 1 and math.floor(side / share) == edge:
            return share
    return math.nextafter(side / edge, 0.0)


def of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    """Read preprocessor_config.json."""
    return _or_none(_of_hf, config)


def _of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    stated = read_keys(config, HF_KEYS, where=None)
    match = CLASS.fullmatch(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
    kind = match[1] if match else None
    if kind not in CLASSES:
        return None
    stated = {**CLASSES[kind], **stated}
    if not stated.get("do_resize", True) or not stated.get("do_rescale", True) or stated.get("do_pad"):
        return None
    if abs(stated.get("rescale_factor", 1 / 255) * 255 - 1) > CLOSE:
        return None
    edge = stated.get("size")
    size: Any = edge
    if isinstance(edge, Mapping):
        match sorted(edge):
            case ["shortest_edge"]:
                size = edge["shortest_edge"]
            case ["height", "width"]:
                size = edge["height"], edge["width"]
            case _:
                return None  # such as a longest edge
    elif kind in SQUASHING and isinstance(edge, int):
        size = (edge, edge)
    if kind == "" and (size is edge or "do_center_crop" not in stated):
        return None  # the class decides
    crop: Any = None
    if stated.get("do_center_crop"):
        crop = stated.get("crop_size")
        crop = (crop, crop) if isinstance(crop, int) else crop
        crop = (crop.get("height"), crop.get("width")) if isinstance(crop, Mapping) else crop
    if crop is None:
        if not isinstance(size, tuple):
            return None  # the size would depend on the image
        crop, size = size, None
    if stated.get("do_normalize", True):
        mean, std = stated.get("image_mean"), stated.get("image_std")
    else:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return _valid(
        size=crop,
        resize_to=None if size == crop else size,
        interpolation=RESAMPLE.get(stated.get("resample", -1)),
        mean=mean,
        std=std,
        crop_rounding="even" if size in (None, crop) or kind == "TimmWrapper" else "down",
        resize_dtype="float32" if kind == "DINOv3ViT" else "uint8",
    )


def hf_files(preprocess: Preprocess) -> dict[str, dict[str, Any]]:
    """The files about image preparation for transformers, by their names, as in `to_hf`.

    transformers prefers processor_config.json, where TimmWrapper can be named. transformers.js has no such class; it reads the
    other file, and rounds the margin of a crop down.
    """
    document = to_hf(preprocess)
    keys = hf_model_keys(preprocess)
    nested = {"image_processor": {**document, **keys}}
    return {"preprocessor_config.json": document, **({"processor_config.json": nested} if keys else {})}


def to_hf(preprocess: Preprocess) -> dict[str, Any]:
    """The content of preprocessor_config.json, for classes that both transformers and transformers.js have.

    Raises NotRepresentable for a crop of floats that is rounded to even.
    """
    kind = _class_of(preprocess)
    height, width = preprocess.size
    document: dict[str, Any] = {
        "image_processor_type": f"{'CLIP' if kind == 'TimmWrapper' else kind}ImageProcessor",
        "do_convert_rgb": len(preprocess.mean) == 3,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": next(number for number, name in RESAMPLE.items() if name == preprocess.interpolation),
    }
    match preprocess.resize_to:
        case int(edge):
            document |= {"size": {"shortest_edge": edge}}
        case (tall, wide):
            document |= {"size": {"height": tall, "width": wide}}
    cropped = preprocess.resize_to is not None
    document |= {"do_center_crop": cropped, **({"crop_size": {"height": height, "width": width}} if cropped else {})}
    document |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    return {**document, "image_mean": list(preprocess.mean), "image_std": list(preprocess.std)}


def hf_model_keys(preprocess: Preprocess) -> dict[str, Any]:
    """The keys from which transformers' TimmWrapper takes timm's transforms; empty where another class does the same."""
    if _class_of(preprocess) != "TimmWrapper":
        return {}
    size = [len(preprocess.mean), *preprocess.size]
    keys = {"input_size": size, **to_timm(preprocess)}
    # in a folder with timm's keys, transformers reads them in config.json; on the Hub, in processor_config.json
    return {"image_processor_type": "TimmWrapperImageProcessor", "pretrained_cfg": keys}


def _class_of(preprocess: Preprocess) -> str:
    even = preprocess.crop_rounding == "even" and preprocess.crop_can_differ
    if preprocess.resize_dtype == "float32":
        if even:
            raise NotRepresentable("transformers resizes floats only where it rounds the margin of a crop down")
        return "DINOv3ViT"
    return "TimmWrapper" if even else "ViT" if preprocess.resize_to is None else "CLIP"


def _valid(**fields: Any) -> Preprocess:
    return Preprocess.model_validate(fields)
