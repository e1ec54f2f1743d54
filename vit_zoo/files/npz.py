"""Reader and writer of NumPy's .npz files, which are zip archives of arrays.

Reading an archive parses only the headers of its arrays; uncompressed values are memory-mapped when they are used. Format:
numpy.lib.format. bfloat16, which NumPy does not have, is stored as two-byte void.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import RefusedContent
from vit_zoo.files.atomic import Staged
from vit_zoo.files.sniff import reading
from vit_zoo.files.stored import DTYPES, Span, Stored, check_expansion, check_shape, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_MEMBERS = 20_000
MAX_HEADER = 10_000  # characters, NumPy's own limit
TYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "|V2": "BF16"}
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def read_npz(path: Path) -> dict[str, Stored]:
    """Return the arrays of a file by name; their values are read lazily. Arrays of text have NumPy's own type, such as `<U8`.

    Raises RefusedContent for a damaged or encrypted file, for Python objects, and for members of a wrong size.
    """
    arrays: dict[str, Stored] = {}
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                if len(members) > MAX_MEMBERS:
                    raise RefusedContent(f"has {len(members):,} members; the limit is {MAX_MEMBERS:,}", where=path)
                for member in members:
                    name = member.filename.removesuffix(".npy")
                    if name in arrays:
                        raise RefusedContent(f"contains {name!r} twice", where=path)
                    arrays[name] = _stored(archive, member, name, path)
        except (RefusedContent, OSError):
            raise
        except Exception as error:  # zipfile and numpy raise more than they document
            raise RefusedContent(f"not a complete .npz file: {error}", where=path) from None
        check_expansion(sum(member.file_size for member in members), path.stat().st_size, path)
    return arrays


def _stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: Path) -> Stored:
    from numpy.lib import format as npy

    if member.flag_bits & 1:
        raise RefusedContent(f"{name!r} is encrypted", where=path)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedContent(f"{name!r} is compressed by a method that NumPy does not write", where=path)
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise RefusedContent(f"{name!r} has an unknown version of the array format", where=path)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        try:
            shape, fortran, dtype = read_header(file, max_header_size=MAX_HEADER)
        except Exception:  # the header is a Python expression, of which NumPy evaluates literals only
            raise RefusedContent(f"{name!r} has a header that is not valid", where=path) from None
        start = file.tell()
    if dtype.hasobject:
        raise RefusedContent(f"{name!r} contains Python objects, which run code when loaded", where=path)
    shape = check_shape(name, shape, path)
    nbytes = math.prod(shape) * dtype.itemsize
    if member.file_size != start + nbytes:
        raise RefusedContent(f"{name!r} has {member.file_size - start:,} bytes for shape {list(shape)}", where=path)
    if dtype.kind == "U" and nbytes:  # text, which weights refuse by its type
        return Stored(dtype.str, shape, partial(_array, path, member, start, shape, fortran, dtype.str, name))
    if dtype.str not in TYPES or dtype.names is not None or dtype.subdtype is not None:
        return Stored(dtype.str, shape, partial(refuse_type, name, dtype.str, path))
    kind = TYPES[dtype.str]
    make = partial(_array, path, member, start, shape, fortran, DTYPES[kind][1], name)
    if member.compress_type != zipfile.ZIP_STORED or fortran:
        return Stored(kind, shape, make)
    return Stored(kind, shape, make, Span(path, member_offset(path, member) + start, nbytes))


def member_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the offset of a member's data, which follows its local header.

    The local header must be read, because its variable fields may be longer than those in the zip directory.
    """
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise RefusedContent(f"{member.filename!r} lies beyond the end of the file", where=path)
        magic, *_, name, extra = LOCAL_HEADER.unpack(header)
    if magic != b"PK\x03\x04":
        raise RefusedContent(f"{member.filename!r} is not at the offset that the zip directory gives", where=path)
    return member.header_offset + LOCAL_HEADER.size + int(name) + int(extra)


def _array(
    path: Path, member: zipfile.ZipInfo, start: int, shape: tuple[int, ...], fortran: bool, kind: str, name: str
) -> Array:  # fmt: skip
    import numpy as np

    if member.compress_type == zipfile.ZIP_STORED:
        content = np.memmap(path, np.uint8, "c", member_offset(path, member), (member.file_size,))
        if zlib.crc32(content.data) != member.CRC:
            raise RefusedContent(f"is damaged: the checksum of {name!r} is wrong", where=path)
        raw: Any = np.asarray(content[start:])
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                raw = bytearray(archive.read(member)[start:])
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise RefusedContent(f"is damaged: the checksum of {name!r} is wrong", where=path) from None
    values = np.frombuffer(raw, kind)
    return np.ascontiguousarray(values.reshape(shape[::-1]).T) if fortran else values.reshape(shape)


def write_npz(staged: Staged, tensors: Mapping[str, Stored]) -> None:
    """Write arrays to a staged file as a stream, in the given order; the same input always gives the same bytes."""

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, tensor in tensors.items():
                member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(member, "w", force_zip64=tensor.nbytes >= 2**31) as out:
                    out.write(_header(tensor))
                    out.writelines(tensor.chunks())

    staged.write(fill)


def _header(tensor: Stored) -> bytes:
    from numpy.lib import format as npy

    kind = next(descr for descr, dtype in TYPES.items() if dtype == tensor.dtype)
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": tensor.shape})
    return header.getvalue()
