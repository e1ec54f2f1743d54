"""Preprocessing of a model as a Python program that needs only numpy and Pillow, and onnxruntime to run an ONNX file.

Tests run the programs: `prepare` returns exactly what `Preprocess` does for an image that is read with Pillow alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from vit_zoo.formats.onnx_summary import OnnxSummary
from vit_zoo.model.config import ModelConfig
from vit_zoo.model.preprocess import Preprocess

SCORES = ("logits", "probabilities")  # outputs with a value for each class
FLOATS = ("float16", "float32", "float64")  # types of prepared images
PROGRAM = """\
import sys

import numpy as np
{imports}from PIL import Image, ImageOps


{prepare}

image = ImageOps.exif_transpose(Image.open(sys.argv[1]))
{rest}"""
PREPARE = '''\
def prepare(image):
    """Return the input for one image: float32, [{channels}, {height}, {width}]."""
    image = image.convert("{mode}")
{scaled}    pixels = {resized}
{crop}    mean, std = np.array({mean}), np.array({std})
    return (pixels.astype(np.float32) * (1 / (255 * std)) - mean / std).astype(np.float32).transpose(2, 0, 1)
'''
RAW = '''\
def prepare(image):
    """Return the input for one image of any size: uint8, [height, width, {channels}]. The file resizes and normalises it."""
    image = image.convert("{mode}")
    return np.asarray(image).reshape(image.height, image.width, {channels})
'''
SHORTER_EDGE = """\
    short = min(image.size)
    width, height = {edge} * image.width // short, {edge} * image.height // short
"""
CROP = """\
    left, top = {left}, {top}
    pixels = pixels[top : top + {height}, left : left + {width}]
"""
RUN = """\
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
{name} = session.run([{output}], {{{input}: {batch}}})[0]
"""
PRINT_VALUE = "print({name}.shape, {name}.ravel()[:5])\n"
PRINT_LABELS = """\
labels = json.loads(session.get_modelmeta().custom_metadata_map["vit_zoo"])["vit_zoo"]["labels"]
for i in np.argsort({name}[0])[::-1][:5]:
    print(f"{{labels[i]}}: {{{name}[0, i]:.3f}}")
"""


def prepare_code(preprocess: Preprocess, *, inside: bool = False) -> str:
    """Return the function `prepare(image)` for a Pillow image; `inside`: the file itself resizes and normalises."""
    height, width = preprocess.size
    words = {"mode": "RGB" if len(preprocess.mean) == 3 else "L", "channels": len(preprocess.mean)}
    if inside:
        return RAW.format(**words)
    resize_to = preprocess.resize_to
    if isinstance(resize_to, int):
        scaled, size, sides = SHORTER_EDGE.format(edge=resize_to), "(width, height)", ("width", "height")
    else:
        sides = (str(width), str(height)) if resize_to is None else (str(resize_to[1]), str(resize_to[0]))
        scaled, size = "", f"({sides[0]}, {sides[1]})"
    resample = f"Image.Resampling.{preprocess.interpolation.upper()}"
    if preprocess.resize_dtype == "float32":
        each = f'np.asarray(channel.convert("F").resize({size}, {resample})) for channel in image.split()'
        resized = f"np.stack([{each}], axis=-1)"
    else:
        resized = f"np.asarray(image.resize({size}, {resample}))"
        resized += "" if words["mode"] == "RGB" else "[:, :, None]"
    left, top = (_offset(preprocess, side, length) for side, length in zip(sides, (width, height), strict=True))
    crop = "" if resize_to is None else CROP.format(left=left, top=top, height=height, width=width)
    statistics = {"mean": list(preprocess.mean), "std": list(preprocess.std)}
    return PREPARE.format(**words, **statistics, scaled=scaled, resized=resized, crop=crop, height=height, width=width)


def _offset(preprocess: Preprocess, side: str, length: int) -> str:
    margin = f"{side} - {length}"
    return f"({margin}) // 2" if preprocess.crop_rounding == "down" else f"round(({margin}) / 2)"


def program(preprocess: Preprocess) -> str:
    """Return a program that prints the shape of the input for the image whose path is its argument."""
    return PROGRAM.format(imports="", prepare=prepare_code(preprocess), rest="print(prepare(image)[None].shape)\n")


def onnx_program(path: Path, config: ModelConfig, summary: OnnxSummary, *, inside: bool) -> str | None:
    """Return a program that runs an ONNX file on the image whose path is its argument; None without known preprocessing.

    It prints the five classes with the highest outputs, or else the shape and the first values of the first output.
    """
    if config.preprocess is None or len(summary.inputs) != 1 or not summary.outputs:
        return None
    (value,), output = summary.inputs, summary.outputs[0].name
    if value.type not in (["uint8"] if inside else FLOATS):
        return None
    batch = "prepare(image)[None]"
    if isinstance(summary.batch, int) and summary.batch > 1:
        batch = f"np.repeat({batch}, {summary.batch}, axis=0)"
    if value.type not in ("uint8", "float32"):
        batch = f"{batch}.astype(np.{value.type})"
    classes = output in SCORES and config.labels is not None
    # names come from the file: json.dumps quotes whatever they contain
    names = {"file": json.dumps(path.name), "output": json.dumps(output), "input": json.dumps(value.name)}
    name = output if output in SCORES else "output"
    rest = RUN.format(**names, name=name, batch=batch) + (PRINT_LABELS if classes else PRINT_VALUE).format(name=name)
    code = PROGRAM.format(imports="import onnxruntime\n", prepare=prepare_code(config.preprocess, inside=inside), rest=rest)
    return f"import json\n{code}" if classes else code
