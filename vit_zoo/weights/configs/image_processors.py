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

from vit_zoo.errors import NotRepresentable, Option
from vit_zoo.model.preprocess import Preprocess

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


def of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    """Read `pretrained_cfg`, or the same keys at the top level of an older config."""
    return _or_none(_of_timm, config)


def _or_none(read: Callable[[Mapping[str, Any]], Preprocess | None], config: Mapping[str, Any]) -> Preprocess | None:
    """The result of a reader, or None where the config has values of other types than its library writes."""
    try:
        return read(config)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return None


def _of_timm(config: Mapping[str, Any]) -> Preprocess | None:
    cfg = config.get("pretrained_cfg")
    cfg = cfg if isinstance(cfg, Mapping) else config
    size, interpolation = cfg.get("input_size"), cfg.get("interpolation")
    if not isinstance(size, list) or len(size) != 3 or not {"mean", "std"} <= set(cfg):
        return None
    height, width = _fixed_size(config, cfg) or size[1:]
    share, mode = cfg.get("crop_pct", 0.875), cfg.get("crop_mode", "center")
    if not isinstance(share, int | float) or not 0 < share <= 1:
        return None
    edges = math.floor(height / share), math.floor(width / share)
    match mode:
        case "squash":
            resize_to: Any = None if edges == (height, width) else edges
        case "center" if height == width:
            resize_to = edges[0]
        case _:
            return None
    return _valid(size=(height, width), resize_to=resize_to, interpolation=interpolation, mean=cfg["mean"], std=cfg["std"])


def _fixed_size(config: Mapping[str, Any], cfg: Mapping[str, Any]) -> list[int] | None:
    """Return the image size of the model's arguments, which timm's `_parse_model_cfg` puts in the place of `input_size`."""
    arguments = config.get("model_args") or {}
    free = arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False
    side = arguments.get("img_size")
    if side is None or free or not cfg.get("fixed_input_size"):
        return None
    return [side, side] if isinstance(side, int) else list(side)


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


def of_open_clip(config: Mapping[str, Any]) -> Preprocess | None:
    """Read the `preprocess_cfg` of open_clip_config.json, or of a live module; the image size may be that of the model.

    Source: open_clip 3.3, transform.py: squash, or resize the shorter edge and crop. `longest` pads.
    """
    return _or_none(_of_open_clip, config)


def _of_open_clip(config: Mapping[str, Any]) -> Preprocess | None:
    cfg = config["preprocess_cfg"]
    size = cfg.get("size") or config["model_cfg"]["vision_cfg"]["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    match cfg.get("resize_mode") or "shortest":
        case "squash":
            resize_to = None
        case "shortest" if height == width:
            resize_to = height
        case _:
            return None
    interpolation = "bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic"
    mean, std = cfg.get("mean") or CLIP[0], cfg.get("std") or CLIP[1]
    return _valid(size=(height, width), resize_to=resize_to, interpolation=interpolation, mean=mean, std=std)


def of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    """Read preprocessor_config.json."""
    return _or_none(_of_hf, config)


def _of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    match = CLASS.fullmatch(str(config.get("image_processor_type") or config.get("feature_extractor_type") or ""))
    kind = match[1] if match else None
    if kind not in CLASSES:
        return None
    config = {**CLASSES[kind], **{key: value for key, value in config.items() if value is not None}}
    if config.get("do_resize", True) is not True or config.get("do_rescale", True) is not True:
        return None
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > CLOSE or config.get("do_pad"):
        return None
    edge = config.get("size")
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
    if kind == "" and (size is edge or "do_center_crop" not in config):
        return None  # the class decides
    crop: Any = None
    if config.get("do_center_crop"):
        crop = config.get("crop_size")
        crop = (crop, crop) if isinstance(crop, int) else (crop.get("height"), crop.get("width")) if crop else None
    if crop is None:
        if not isinstance(size, tuple):
            return None  # the size would depend on the image
        crop, size = size, None
    if config.get("do_normalize", True):
        mean, std = config.get("image_mean"), config.get("image_std")
    else:
        mean, std = [0.0] * 3, [1.0] * 3
    return _valid(
        size=crop,
        resize_to=None if size == crop else size,
        interpolation=RESAMPLE.get(config.get("resample", -1)),
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


def _valid(**fields: Any) -> Preprocess | None:  # pydantic's error is a ValueError
    for key in ("mean", "std"):
        value = fields[key]
        if not isinstance(value, list | tuple) or not all(isinstance(x, int | float) for x in value):
            return None
        fields[key] = tuple(float(x) for x in value)
    return Preprocess.model_validate(fields)
