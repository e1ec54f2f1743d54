"""Mutations of bytes, JSON, TOML, pickles, zip archives and checkpoints."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
import zlib
from random import Random
from typing import Any

from fuzz.case import VALUES, Bytes

SMALL_INTEGERS = (0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def of_bytes(data: bytes, rng: Random) -> bytes:
    """Change bytes without regard to what they mean."""
    content = bytearray(data)
    size = len(content)
    if not size:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(9)))
    place = rng.randrange(size) if rng.random() < 0.6 else rng.randrange(min(size, 64))
    match rng.randrange(8):
        case 0:
            content[place] ^= 1 << rng.randrange(8)
        case 1:
            content[place] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        case 2:
            packed = struct.pack(rng.choice(("<I", ">I")), rng.choice(SMALL_INTEGERS))
            content[place : place + 4] = packed
        case 3:
            del content[place : place + rng.choice((1, 2, 8, 64, 1024))]
        case 4:
            content[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 8, 64))))
        case 5:
            del content[place:]
        case 6:
            start = rng.randrange(size)
            content[place:place] = content[start : start + rng.choice((4, 16, 256))]
        case _:
            packed = struct.pack(rng.choice(("<Q", ">Q")), rng.choice((0, 2**63 - 1, 2**63, 2**64 - 1, 2**40, size, size - 1)))
            content[place : place + 8] = packed
    return bytes(content)


# --- JSON ---


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document, as a container and the key in it."""
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        one = todo.pop()
        pairs = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, value in pairs:
            found.append((one, key))
            todo.append(value)
    return found


def _value(rng: Random, old: Any) -> Any:
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.4:
        return rng.choice(
            (old + 1, old - 1, -old, old * 2, old * 10**9, str(old), float(old) + 0.5, [old], [old, old], bool(old))
        )
    if isinstance(old, list) and old and rng.random() < 0.4:
        return rng.choice(
            (old[:-1], [*old, old[0]], old * 3, [str(one) for one in old], old[0], [old], [0] * len(old), [-1] * len(old))
        )
    if isinstance(old, str) and rng.random() < 0.4:
        return rng.choice((old.upper(), old + "x", old[:-1], old * 50, [old], {old: old}, old + "\n", f" {old}"))
    return rng.choice(VALUES)


def in_document(document: Any, rng: Random) -> Any:
    """Change a JSON document in place, and return it or another one."""
    places = _places(document)
    if not places or rng.random() < 0.01:
        return rng.choice(VALUES)
    owner, key = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2 | 3:
            owner[key] = _value(rng, owner[key])
        case 4:
            if isinstance(owner, dict):
                del owner[key]
            else:
                owner.pop(key)
        case 5:
            other, place = rng.choice(places)
            owner[key] = json.loads(json.dumps(other[place]))
        case 6:
            if isinstance(owner, dict):
                owner[rng.choice((str(key) + "x", str(key).upper(), "", "\x1b[2J", *map(str, owner)))] = owner[key]
            else:
                owner.append(_value(rng, owner[key]))
        case _:
            for _ in range(rng.choice((1, 3, 60))):
                owner[key] = rng.choice(([owner[key]], {"a": owner[key]}))
    return document


def of_json(data: bytes, rng: Random) -> bytes:
    """Change a JSON file: mostly its values, at times its text."""
    if rng.random() < 0.04:
        return of_bytes(data, rng)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # an earlier mutation changed its text
        return of_bytes(data, rng)
    text = json.dumps(in_document(document, rng))
    if rng.random() < 0.02:  # duplicate key, or an integer of thousands of digits
        return text.replace("{", rng.choice(('{"a": 1, "a": 2, ', '{"a": ' + "9" * 5000 + ", ")), 1).encode()
    return text.encode("utf-8", "surrogatepass")


# --- TOML, and lines ---

LITERALS = (
    "true", "0", "-1", "1.5", "inf", "nan", '"a"', '""', "[]", "[1]", "[0, 0]", "[1, 2, 3]", "{}", "{ a = 1 }", "2026-01-01",
    "99999999999999999999",
    "1e999", '"../../x"', '"\\u001b[2J"', "10:00:00", '["a"]', "[[]]", "0x10", "1_000", "'vit_b16'", '"tiny"', '"cls"',
        '"gelu"', "1000000",
)  # fmt: skip


def of_toml(data: bytes, rng: Random) -> bytes:
    """Change the lines of a TOML file."""
    if rng.random() < 0.08:
        return of_bytes(data, rng)
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    place = rng.randrange(len(lines))
    key, _, value = lines[place].partition("=")
    match rng.randrange(7):
        case 0 | 1 | 2:
            lines[place] = f"{key.strip() or 'a'} = {rng.choice(LITERALS)}"
        case 3:
            del lines[place]
        case 4:
            lines.insert(place, rng.choice(lines))
        case 5:
            lines[place] = (
                f"{rng.choice((key + 'x', 'a.b.c', chr(34) * 2, '[spec]', '[variant]', '[family]', key.upper()))} ={value}"
            )
        case _:
            lines[place] = lines[place].replace(
                *rng.choice((("=", "=="), ('"', ""), ("1", "0"), ("{", "["), (" ", "\t"), ("6", "99999")))
            )
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def of_lines(data: bytes, rng: Random) -> bytes:
    """Change lines of a text file."""
    if rng.random() < 0.3:
        return of_bytes(data, rng)
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[place]
        case 1:
            lines.insert(place, rng.choice(lines))
        case 2:
            lines[place] = rng.choice((b"", b"\x1b[2J", b"a\tb", b"{", b"[1]", "²".encode(), b"\xff", b"x" * 9999, b'{"0": 1}'))
        case _:
            lines *= rng.choice((2, 1000))
    return b"\n".join(lines)


# --- containers ---


def of_safetensors(data: bytes, rng: Random) -> bytes:
    """Change a safetensors file: mostly the values in its header."""
    if rng.random() < 0.15:
        return of_bytes(data, rng)
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    raw = of_json(header, rng)
    length = len(raw) if rng.random() < 0.95 else rng.choice((0, 1, 2**31, 2**63, 2**64 - 1, len(raw) + 1))
    return struct.pack("<Q", length) + raw + rest


PICKLED = (
    b"N", b"\x88", b"K\x00", b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"X\x01\x00\x00\x00a",
    b"C\x01a", b"]", b"}", b")", b"G\x7f\xf8" + bytes(6),
    b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"R",
    b"b", b"0", b"2", b"(", b"t", b"s",
    b"u", b"\x85", b"\x86", b"\x87", b"h\x00", b"h\x7f", b"q\x00", b"Q", b"\x81", b"\x93", b".", b"e", b"a",
)  # fmt: skip


def of_pickle(data: bytes, rng: Random) -> bytes:
    """Change the opcodes of a pickle."""
    if rng.random() < 0.15:
        return of_bytes(data, rng)
    try:
        starts = [place for _, _, place in pickletools.genops(data)]
    except Exception:  # an earlier mutation changed it
        return of_bytes(data, rng)
    parts = [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]
    place = rng.randrange(1, len(parts))
    match rng.randrange(6):
        case 0:
            del parts[place]
        case 1:
            parts.insert(place, rng.choice(PICKLED))
        case 2 | 3:
            parts[place] = rng.choice(PICKLED)
        case 4:
            other = rng.randrange(1, len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        case _:
            parts[place] = of_bytes(parts[place], rng)
    return b"".join(parts) + data[starts[-1] + 1 :] * 0


def of_npy(data: bytes, rng: Random) -> bytes:
    """Change the header of an array, or its bytes."""
    if rng.random() < 0.2 or data[:6] != b"\x93NUMPY":
        return of_bytes(data, rng)
    size = int.from_bytes(data[8:10], "little")
    text, rest = data[10 : 10 + size].decode("latin1"), data[10 + size :]
    old, new = rng.choice((
        ("<f4", rng.choice((">f4", "<f2", "<f8", "<i8", "|O", "|V2", "<U9", "<c8", "<q", "", "|S1", "<M8[s]"))),
        ("False", rng.choice(("True", "0", "None", "[]"))),
        ("(", rng.choice(("(-1, ", "(0, ", "(18446744073709551616, ", "('a', ", "((", "[", "(True, ", "(1.5, "))),
        (")", rng.choice((", 2)", ", 0)", "", "))"))),
        ("shape", rng.choice(("shap", "descr", ""))), ("{", "{'x': 1, "), ("'", '"'), (",", ""), ("}", "}x"),
    ))  # fmt: skip
    raw = text.replace(old, new, 1).encode("latin1", "replace")
    return data[:8] + struct.pack("<H", len(raw)) + raw + rest


def of_zip(inner: dict[str, Bytes], default: Bytes = of_bytes) -> Bytes:
    """Return a mutation of zip archives: of one member by `inner`'s mutation for the end of its name, or of the archive."""

    def mutation(data: bytes, rng: Random) -> bytes:
        if rng.random() < 0.15:
            return of_bytes(data, rng)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:  # an earlier mutation changed the archive
            return of_bytes(data, rng)
        if not members:
            return of_bytes(data, rng)
        known = [number for number, (name, _) in enumerate(members) if name.endswith(tuple(inner))]
        place = rng.choice(known) if known and rng.random() < 0.85 else rng.randrange(len(members))
        name, value = members[place]
        match rng.randrange(10):
            case 0:
                del members[place]
            case 1:
                members.append((name, value))
            case 2:
                members[place] = (
                    rng.choice((name + "x", "../" + name, name.upper(), "a/" + name, "\x1b[2J", name.rpartition("/")[2])),
                    value,
                )
            case 3:
                members[place] = (name, rng.choice(members)[1])
            case _:
                change = next((one for end, one in inner.items() if name.endswith(end)), default)
                members[place] = (name, change(value, rng))
        out = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
        with zipfile.ZipFile(out, "w", kind) as archive, warnings.catch_warnings(action="ignore"):  # a name twice
            for name, value in members:
                archive.writestr(zipfile.ZipInfo(name or "x"), value, kind)
        return out.getvalue()

    return mutation


def of_png(data: bytes, rng: Random) -> bytes:
    """Change a chunk of a PNG file, and compute its checksum again."""
    if data[:4] != b"\x89PNG" or rng.random() < 0.3:
        return of_bytes(data, rng)
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    if not chunks:
        return of_bytes(data, rng)
    chosen = rng.randrange(len(chunks))
    kind, value = chunks[chosen]
    match rng.randrange(5):
        case 0:
            chunks.insert(chosen, rng.choice(chunks))
        case 1:
            chunks.insert(
                chosen,
                (rng.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"iCCP", b"gAMA", b"eXIf", b"zTXt")), of_bytes(value, rng)[:99]),
            )
        case 2:
            del chunks[chosen]
        case _:
            chunks[chosen] = (kind, of_bytes(value, rng))
    packed = (
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value)) for kind, value in chunks
    )
    return data[:8] + b"".join(packed)
