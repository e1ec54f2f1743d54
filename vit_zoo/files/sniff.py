"""Kind of a file, detected from its content and never from its name; readers of JSON and of content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError, RefusedContent, VitzooError
from vit_zoo.files.names import target_name
from vit_zoo.progress import BYTES, LARGE, step

CHUNK = 1 << 20  # bytes that are hashed at once
MAX_JSON = 4_194_304  # bytes; a config with 21,843 labels has about 1 MB

MAGIC = (
    (b"version https://git-lfs", "git-lfs pointer"),
    (b"\x89HDF", "hdf5"),
    (b"\x93NUMPY", "npy"),
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"BM", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "old torch"),  # torch before 1.6: a sequence of pickles
    (b"\x80", "pickle"),
)

HINTS = {"git-lfs pointer": "run `git lfs pull` to download the file"}  # what to do about a file of another kind


def sniff(path: Path) -> str:
    """Return the kind of a file: folder, safetensors, torch, torchscript, pt2, npz, onnx, json, image, ... or unknown.

    Raises InputError if there is no such file, RefusedContent if it cannot be read.
    """
    with reading(path):
        if path.is_dir():
            return "folder"
        with path.open("rb") as file:
            head = file.read(64)
    if not head:
        return "empty"
    # checked first, because the length of the header may start with the magic bytes of another kind
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "HTML page"
    if text.startswith(b"{"):
        return "json"
    # a ModelProto starts with ir_version, a small varint, followed by producer_name or another of its fields
    if head[0] == 0x08 and len(head) > 2 and head[1] < 0x40 and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72):
        return "onnx"
    return "unknown"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any OSError in the block into InputError (no such file) or RefusedContent (cannot be read) for the file.

    Also refuses pipes and devices, which may never end.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise RefusedContent("not a regular file", where=path)
        yield
    except OSError as error:
        if isinstance(error, VitzooError):
            raise
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError("no such file or folder", where=path) from None
        raise RefusedContent(f"cannot be read: {error.strerror}", where=path) from None


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether there is such a file. A text that may be none can be too long for a path, an OSError for `Path`."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def read_text(path: Path) -> str:
    """Read a text file in UTF-8. Raises InputError for other bytes and for files above 4 MB."""
    content = _limited(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not a text file in UTF-8", where=path) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file. Raises InputError for invalid JSON, duplicate keys, NaN and files above 4 MB."""
    document = read_json_value(path)
    if not isinstance(document, dict):
        raise InputError("expected a JSON object", where=path)
    return document


def read_json_value(path: Path) -> Any:
    """Read a JSON file of any value. Raises as `read_json`."""

    content = _limited(path)
    try:
        return parse_json(content.decode())
    except ValueError as error:  # invalid JSON or UTF-8
        raise InputError(f"not valid JSON: {error}", where=path) from None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError for what `json.loads` does not refuse: duplicate keys, NaN, depth."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("a key appears twice")
        return document

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _limited(path: Path) -> bytes:
    """Return the content of a small file. Raises InputError above 4 MB."""
    with reading(path):
        size = path.stat().st_size
        if size > MAX_JSON:
            raise InputError(f"has {size:,} bytes; the limit is {MAX_JSON:,}", where=path)
        return path.read_bytes()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    return _hashed(path, hashlib.sha256())


def git_oid(path: Path) -> str:
    """Return the git object id of a file's content (a blob) in hexadecimal."""
    with reading(path):
        return _hashed(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _hashed(path: Path, digest: Any) -> str:
    with reading(path), path.open("rb") as file:
        buffer, size = bytearray(CHUNK), path.stat().st_size
        with step(f"hashing {target_name(path)}", size, BYTES, least=LARGE) as progress:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
                progress.advance(count)
    return str(digest.hexdigest())


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises undocumented errors: struct.error, NotImplementedError, ...
        return "damaged zip"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    base_names = {name.rsplit("/", 1)[-1] for name in names}
    if "archive_format" in base_names:
        return "pt2"
    if "constants.pkl" in base_names:
        return "torchscript"
    return "torch" if "data.pkl" in base_names else "zip"
