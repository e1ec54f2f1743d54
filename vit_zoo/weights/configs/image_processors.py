"""Image preparation in the configs of timm and transformers, to and from `Preprocess`.

Readers return None for what `Preprocess` does not express exactly.

Sources: timm 1.0.31, data/transforms_factory.py; transformers 5.23, models/*/image_processing_*.py. With odd
margins, the centre crops of the two differ by one pixel: transformers rounds the margin down, timm to even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from vit_zoo.errors import NotRepresentable
from vit_zoo.model.preprocess import Preprocess

RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# the classes for which a `size` of one number means both edges; for the others it is the shorter edge
SQUASHING = ("ViT", "DeiT", "Siglip", "DINOv3ViT", "Dinov3ViT")
OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
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
    height, width = size[1:]
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


def to_timm(preprocess: Preprocess) -> dict[str, Any]:
    """The keys of `pretrained_cfg`. Raises NotRepresentable for a resize that timm cannot express."""
    height, width = preprocess.size
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
    mean, std = (cfg.get(name) or default for name, default in OPENAI.items())
    return _valid(size=(height, width), resize_to=resize_to, interpolation=interpolation, mean=mean, std=std)


def of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    """Read preprocessor_config.json."""
    return _or_none(_of_hf, config)


def _of_hf(config: Mapping[str, Any]) -> Preprocess | None:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    if config.get("do_resize", True) is not True or config.get("do_rescale", True) is not True:
        return None
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > CLOSE or config.get("do_pad"):
        return None
    edge = config.get("size")
    size: Any = edge
    if isinstance(edge, Mapping):
        size = edge.get("shortest_edge") or (edge.get("height"), edge.get("width"))
    elif kind.startswith(SQUASHING) and isinstance(edge, int):
        size = (edge, edge)
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
    resample = RESAMPLE.get(config.get("resample", 3 if kind.startswith(("CLIP", "Bit", "Siglip", "DeiT")) else 2))
    return _valid(size=crop, resize_to=None if size == crop else size, interpolation=resample, mean=mean, std=std)


def to_hf(preprocess: Preprocess) -> dict[str, Any]:
    """The content of preprocessor_config.json, for classes that both transformers and transformers.js have."""
    height, width = preprocess.size
    document: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor" if preprocess.resize_to is None else "CLIPImageProcessor",
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


def _valid(**fields: Any) -> Preprocess | None:  # pydantic's error is a ValueError
    for key in ("mean", "std"):
        value = fields[key]
        if not isinstance(value, list | tuple) or not all(isinstance(x, int | float) for x in value):
            return None
        fields[key] = tuple(float(x) for x in value)
    return Preprocess.model_validate(fields)
