"""Parts of a table of features: the rows of one chunk as bytes, which are read again to put the table together."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CannotWrite
from vit_zoo.files.partial import Partial

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.worker import Rows


@dataclass(frozen=True)
class Part:
    """The features of the images of a chunk.

    Attributes:
        names: The images that could be read.
        sizes: Their heights and widths before any change, int32 [images, 2].
        features: float32 or float16 [images, width]; [0, 0] if no image could be read.
        failures: Name and reason of each of the others.
    """

    names: tuple[str, ...]
    sizes: Array
    features: Array
    failures: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, rows: Rows) -> Part:
        """Return the part for results with one feature."""
        (features,) = rows.values.values()
        return cls(tuple(image.name for image in rows.images), rows.sizes, features, rows.failures)

    def content(self) -> bytes:
        """Return the bytes of the part: a line of JSON, the sizes, the features; after a checksum of them."""
        import numpy as np

        header = {
            "names": self.names, "failures": self.failures, "dtype": self.features.dtype.str, "shape": self.features.shape,
        }  # fmt: skip
        sizes, features = (np.ascontiguousarray(x).tobytes() for x in (self.sizes, self.features))
        body = json.dumps(header).encode() + b"\n" + sizes + features
        return zlib.crc32(body).to_bytes(4, "little") + body


def read_part(partial: Partial, number: int) -> Part:
    """Return a finished part. Raises CannotWrite for one that is damaged, after removing it."""
    import numpy as np

    content = partial.read_part(number)
    if zlib.crc32(memoryview(content)[4:]).to_bytes(4, "little") != content[:4]:
        partial.drop_part(number)
        raise CannotWrite(f"part {number} is damaged", where=partial.folder, hint="the same command makes it again")
    end = content.index(b"\n", 4)
    header: dict[str, Any] = json.loads(content[4:end])
    names = tuple(header["names"])
    sizes = np.frombuffer(content, "<i4", 2 * len(names), end + 1).reshape(-1, 2)
    features = np.frombuffer(content, header["dtype"], offset=end + 1 + sizes.nbytes).reshape(header["shape"])
    return Part(names, sizes, features, tuple((name, reason) for name, reason in header["failures"]))


@dataclass(frozen=True)
class Parts:
    """All parts of a finished run, or some that follow each other, in their order. They are read one by one.

    Attributes:
        partial: Their folder.
        numbers: Their numbers.
        rows: The number of images with features.
        width: The length of their features.
        failed: The number of images without.
    """

    partial: Partial
    numbers: range
    rows: int
    width: int
    failed: int

    @classmethod
    def of(cls, partial: Partial, numbers: range) -> Parts:
        """Return the parts of a folder, and read each once. Raises CannotWrite for damaged ones or other widths."""
        rows = failed = 0
        widths = set()
        for number in numbers:
            part = read_part(partial, number)
            rows, failed = rows + len(part.names), failed + len(part.failures)
            if part.names:
                widths.add(part.features.shape[1])
        if len(widths) > 1:
            cause = f"the model returned features of {len(widths)} widths: {', '.join(map(str, sorted(widths)))}"
            raise CannotWrite(cause, where=partial.folder)
        return cls(partial, numbers, rows, max(widths, default=0), failed)

    def __iter__(self) -> Iterator[Part]:
        for number in self.numbers:
            yield read_part(self.partial, number)
