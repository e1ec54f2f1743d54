"""Pictures of attention: a heat map over the image that a model was given, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CannotWrite, InputError, RefusedContent
from vit_zoo.files.atomic import Staged, check_target
from vit_zoo.files.disk import writing
from vit_zoo.model.batches import Failed
from vit_zoo.progress import counting, step

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from vit_zoo.files.image_inputs import ImageInput
    from vit_zoo.inference.attention import AttentionSource
    from vit_zoo.model.preprocess import Preprocess

    Array = np.ndarray[Any, np.dtype[Any]]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SMALLEST, LARGEST = 320, 1600  # pixels of the longer side of a picture
# from black over purple and orange to light yellow, in ten equal steps: matplotlib's "inferno"
COLOURS = ("000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4")
BRIGHTEST = (
    0.97  # quantile of the patches with the brightest colour: in many models, single patches of background collect attention
)
OUTSIDE = 0.35  # brightness of what the crop leaves out


class PictureFiles:
    """The names of pictures: one file, or a folder with a file for each image."""

    def __init__(self, target: Path, count: int) -> None:
        """Raises InputError for a name that cannot be that of a picture, or for one file for several images; CannotWrite."""
        named = target.suffix.lower() in SUFFIXES and not target.is_dir()
        if named and count > 1:
            raise InputError(f"is one file, for {count} images; name a folder", where=target)
        if not named and target.suffix and not target.is_dir():
            raise InputError(f"the name of a picture must end in {', '.join(SUFFIXES)}", where=target)
        self.target, self.folder = target, None if named else target
        self._used: set[str] = set()
        if named:
            check_target(target)
        elif target.exists() and not target.is_dir():
            raise CannotWrite("expected a folder, got a file", where=target)
        elif not target.resolve().parent.is_dir():
            raise InputError("no such folder", where=target.parent)

    def path(self, name: str) -> Path:
        """Return the file for the next image: its own name, with a number if another image had it before."""
        if self.folder is None:
            return self.target
        stem = Path(name.replace(" ", "_") if name.startswith("image ") else name).stem
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(self._used) + 2))
        chosen = next(each for each in numbered if each not in self._used)
        self._used.add(chosen)
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        return self.folder / f"{chosen}.png"


def draw_all(source: AttentionSource, images: Sequence[ImageInput], files: PictureFiles, failed: Failed) -> dict[str, Path]:
    """Draw the attention to each image and return the files by the names of the images. `failed` is as in `prepared_batches`."""
    drawn: dict[str, Path] = {}
    prepare = source.preprocess.whole if source.prepares else source.preprocess
    with step("drawing attention", len(images), "images") as progress:
        for image in counting(images, progress):
            try:
                picture = image.read()
                prepared = prepare(picture)
            except (InputError, RefusedContent) as error:
                failed(image.name, error)
                continue
            heat = source.of(prepared[None])[0]
            drawn[image.name] = files.path(image.name)
            save(heat_picture(picture, heat, source.preprocess), drawn[image.name])
    return drawn


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically."""
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
    with Staged(path) as staged:
        staged.write(lambda file: picture.save(file, kind))
        staged.commit()


def heat_picture(image: Image.Image, heat: Array, preprocess: Preprocess) -> Image.Image:
    """Return an image with a heat map where the model saw it; what the crop left out is darker.

    Args:
        image: The image, before it is prepared.
        heat: A value for each patch, [rows, columns]; colours go from the smallest to the quantile `BRIGHTEST`.
        preprocess: How the image was prepared.
    """
    import numpy as np
    from PIL import Image

    scale = min(max(1.0, SMALLEST / max(image.size)), LARGEST / max(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    enlarged = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    pixels = np.asarray(image.convert("RGB").resize(size, enlarged), dtype="<f4")  # type: ignore[arg-type]
    left, top, right, bottom = (round(edge * scale) for edge in preprocess.kept(*image.size))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    values = np.asarray(_scaled(heat, (right - left, bottom - top)))
    seen = pixels[top:bottom, left:right]
    strength = (0.15 + 0.55 * values)[..., None]
    picture = OUTSIDE * pixels
    picture[top:bottom, left:right] = (1 - strength) * seen.mean(axis=-1, keepdims=True) + strength * _coloured(values)
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))


def _scaled(heat: Array, size: tuple[int, int]) -> Image.Image:
    """Return values as an image of floats from 0 to 1, of a size (width, height)."""
    import numpy as np
    from PIL import Image

    low, high = float(heat.min()), float(np.quantile(heat, BRIGHTEST))
    values = np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)
    return Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)


def _coloured(values: Array) -> Array:
    """Return the colours of values from 0 to 1, [..., 3] from 0 to 255."""
    import numpy as np

    table = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in COLOURS], dtype="<f4")
    place = values * (len(table) - 1)
    below = np.clip(place.astype(int), 0, len(table) - 2)
    share = (place - below)[..., None]
    return (1 - share) * table[below] + share * table[below + 1]  # type: ignore[no-any-return]
