"""Pictures of the page 'How a Vision Transformer works': a photograph cut into patches, and inner values of `vit_digits`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from svg import ACCENT, INK, LINE, OTHER, arrow, part, photo, picture, rect, text

import vit_zoo

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "zoo" / "vit_digits"
Array = np.ndarray[Any, np.dtype[Any]]


def pictures() -> dict[str, str]:
    drawn = {"patches": patches(), "positions": positions(), "blocks": blocks(), "heads": heads()}
    return {f"how/{name}.svg": text_ for name, text_ in drawn.items()}


@functools.cache
def _model() -> vit_zoo.ViT:
    torch.set_num_threads(1)
    return vit_zoo.load("vit_digits")


def _digit(file: Path) -> Array:
    return np.asarray(Image.open(file).convert("L"), np.float32) / 255  # white on black, as in the data set


@functools.cache
def _inside(file: Path) -> dict[str, Array]:
    """Compute the logits, the tokens after each block and the attention of the first block for one digit."""
    model = _model()
    assert model.config.preprocess is not None
    image = torch.from_numpy(model.config.preprocess(Image.open(file)))[None]
    names = [f"block.{i}" for i in range(model.spec.depth)]
    with torch.inference_mode():
        features = model.features(image, "logits", *names, "attn.0")
    return {name: value[0].numpy() for name, value in features.items()}


def patches() -> str:
    """Draw a photograph, its patches, and the sequence that they become."""
    side, patch, n = 224, 32, 7
    image = Image.open(ROOT / "zoo" / "photos" / "cat.jpg").convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    image = image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.BICUBIC)
    parts = [photo(image, "cat"), text(0, 14, "image  3 x 224 x 224", bold=True)]
    parts.append(part("cat", (0, 0, side, side), 0, 24, side, side))
    gap, x0 = 5, 290
    parts += [arrow(236, 24 + side / 2, 40), text(x0, 14, "49 patches  (h w) = 7 x 7, each 3 x 32 x 32", bold=True)]
    for row in range(n):
        for column in range(n):
            place = (x0 + column * (patch + gap), 24 + row * (patch + gap))
            parts.append(part("cat", (column * patch, row * patch, patch, patch), *place, patch, patch))
    y1, small = 330, 26
    parts.append(text(0, y1 - 12, "the sequence  49 x 3072, row by row; the first 20 tokens", bold=True))
    for token in range(20):
        row, column = divmod(token, n)
        parts.append(part("cat", (column * patch, row * patch, patch, patch), token * (small + 2), y1, small, small))
    return picture(600, y1 + small + 6, "A photograph of a cat is cut into 7 by 7 patches, which become a sequence", parts)


def positions() -> str:
    """Draw how similar the learned positions of vit_digits are: one map per patch, with the patch's own place framed."""
    table = _model().pos_embed.detach()[0, 1:].numpy()
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    alike = unit @ unit.T
    n, cell, gap = 4, 17, 12
    parts = [text(0, 14, "cosine of each position's embedding with all others", bold=True)]
    for index in range(n * n):
        row, column = divmod(index, n)
        x, y = column * (n * cell + gap), 28 + row * (n * cell + gap)
        for other in range(n * n):
            down, right = divmod(other, n)
            value = float(alike[index, other])
            fill = ACCENT if value >= 0 else OTHER
            parts.append(rect(x + right * cell, y + down * cell, cell - 1, cell - 1, fill=fill, opacity=min(1, abs(value))))
        parts.append(rect(x + column * cell, y + row * cell, cell - 1, cell - 1, line=INK))
    width = n * (n * cell + gap) + 190
    x = n * (n * cell + gap) + 16
    for step, (words, fill, value) in enumerate((("1, itself", ACCENT, 1.0), ("0", ACCENT, 0.05), ("-1", OTHER, 1.0))):
        parts += [rect(x, 40 + 26 * step, 16, 16, fill=fill, opacity=value, line=LINE), text(x + 26, 53 + 26 * step, words)]
    title = "Sixteen maps, one for each patch of vit_digits: each position is similar to itself and to hardly any other"
    return picture(width, 28 + n * (n * cell + gap), title, parts)


def blocks() -> str:
    """Draw what the head predicts if the encoder ends after each block: the class token through the final norm and the head."""
    model = _model()
    files = [DIGITS / "samples" / f"digit_{digit}.png" for digit in (3, 7, 8)]
    cell, height, left = 24, 22, 74
    parts, y = [], 20.0
    for file in files:
        inner = _inside(file)
        parts.append(text(0, y - 4, f"a {file.stem[-1]}", bold=True))
        parts += [text(left + digit * cell + cell / 2, y - 4, str(digit), anchor="middle", size=12) for digit in range(10)]
        for block in range(model.spec.depth):
            with torch.inference_mode():
                token = torch.from_numpy(inner[f"block.{block}"][:1])
                chance = model.head(model.norm(token)).softmax(-1)[0].numpy()
            parts.append(text(left - 10, y + block * height + 15, f"block {block}", anchor="end", size=12))
            for digit in range(10):
                place = (left + digit * cell, y + block * height, cell - 2, height - 2)
                parts.append(rect(*place, fill=ACCENT, opacity=0.06 + 0.94 * float(chance[digit])))
        y += model.spec.depth * height + 34
    title = "For three digits, the probability of each class read from the class token after each block"
    return picture(left + 10 * cell + 4, y - 20, title, parts)


def heads() -> str:
    """Draw what the class token attends to in the first block: each head's weights of the 16 patches, on top of the digit."""
    model = _model()
    files = [DIGITS / "samples" / f"digit_{digit}.png" for digit in (0, 3, 4, 7)]
    pixel, gap, left = 10, 16, 0
    side = 8 * pixel
    parts = [text(side / 2, 14, "digit", anchor="middle", bold=True)]
    columns = {f"head {head}": (head + 1) * (side + gap) + side / 2 for head in range(model.spec.heads)}
    parts += [text(x, 14, words, anchor="middle", bold=True) for words, x in columns.items()]
    for line, file in enumerate(files):
        image = _digit(file)
        weights = _inside(file)["attn.0"][:, 0, 1:]  # n (h w): the class token's query, the patches' keys
        y = 24 + line * (side + gap)
        for column in range(model.spec.heads + 1):
            x = left + column * (side + gap)
            parts.append(rect(x, y, side, side, line=LINE))
            for (row, across), ink in np.ndenumerate(image):
                if ink >= 0.02:
                    place = (x + across * pixel, y + row * pixel, pixel, pixel)
                    parts.append(rect(*place, fill=INK, opacity=float(ink) * (1 if column == 0 else 0.45)))
            if column == 0:
                continue
            share = weights[column - 1] / weights[column - 1].max()
            for index, value in enumerate(share):
                down, right = divmod(index, 4)
                place = (x + right * 2 * pixel, y + down * 2 * pixel, 2 * pixel, 2 * pixel)
                parts.append(rect(*place, fill=OTHER, opacity=0.75 * float(value)))
    width = (model.spec.heads + 1) * (side + gap) - gap
    title = "Four digits, and for each the patches that the class token attends to in the four heads of the first block"
    return picture(width, 24 + len(files) * (side + gap) - gap + 2, title, parts)
