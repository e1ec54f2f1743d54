"""Bad images, names and options."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from corpus.entry import INPUT, REFUSED, Entry, Maker, command, content

LONG = "a" * 5000
PICTURE = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def _encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(PICTURE)).save(out, kind, **options)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes = b"", *, depth: int = 8, color: int = 2, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", zlib.compress(data, 9)) + _chunk(b"IEND", b"")


def _tiff(entries: list[tuple[int, int, int, int]], *, endless: bool = False) -> bytes:
    """Return a TIFF file with one directory of these entries: tag, type, count and value."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 8 if endless else 0)


def _exif(tag: int, value: Any) -> bytes:
    image = Image.fromarray(PICTURE)
    exif = image.getexif()
    exif[tag] = value
    return _encoded("JPEG", image, exif=exif)


def _animation(kind: str) -> bytes:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 128, 255)]
    return _encoded(kind, frames[0], save_all=True, append_images=frames[1:])


JPEG, PNG = _encoded("JPEG"), _encoded("PNG")
TIFF_SIZE = [
    (256, 4, 1, 100_000),
    (257, 4, 1, 100_000),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
    (279, 4, 1, 4),
]
IMAGES: dict[str, bytes | Callable[[], bytes]] = {
    "empty": b"",
    "html": b"<!DOCTYPE html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "text": b"not an image",
    "zeros": bytes(1000),
    "jpeg_cut": JPEG[: len(JPEG) // 2],
    "jpeg_header": JPEG[:20],
    "jpeg_65535": JPEG.replace(struct.pack(">HH", 40, 30), struct.pack(">HH", 65535, 65535)),
    "png_cut": PNG[: len(PNG) // 2],
    "png_magic": PNG[:8],
    "png_crc": PNG[:60] + bytes([PNG[60] ^ 4]) + PNG[61:],
    "png_bomb": _png(60_000, 60_000, bytes(1 << 20)),
    "png_100_mp": _png(10_000, 10_000, bytes(1 << 20)),
    "png_80000000_x_1": _png(80_000_000, 1, bytes(1 << 20)),
    "png_1_x_80000000": _png(1, 80_000_000, bytes(1 << 20)),
    "png_0_x_0": _png(0, 0),
    "png_2_to_the_31": _png(2**31 - 1, 2**31 - 1),
    "png_no_data": _png(8, 8),
    "png_depth_64": _png(8, 8, bytes(999), depth=64),
    "png_color_9": _png(8, 8, bytes(999), color=9),
    "png_text_bomb": lambda: _png(8, 8, bytes(999), extra=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27), 9))),
    "png_iccp_bomb": lambda: _png(8, 8, bytes(999), extra=_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 27), 9))),
    "png_chunks_100k": _png(8, 8, bytes(0), extra=_chunk(b"teXt", b"a") * 100_000),
    "apng": _animation("PNG"),
    "gif_animated": _animation("GIF"),
    "webp_animated": _animation("WEBP"),
    "gif_cut": _encoded("GIF")[:40],
    "gif_65535": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(30),
    "webp_cut": _encoded("WEBP")[:60],
    "webp_riff": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + b"\xff" * 40,
    "bmp_cut": _encoded("BMP")[:60],
    "bmp_huge": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 10**9, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp_negative": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 10**9, 0, 0, 54, 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp_rle": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 0, 0) + b"\xff\x00" * 40,
    "tiff_float": _encoded("TIFF", Image.fromarray(np.full((8, 8), 0.5, np.float32))),
    "tiff_int32": _encoded("TIFF", Image.fromarray(np.full((8, 8), -5, np.int32))),
    "tiff_huge": _tiff(TIFF_SIZE),
    "tiff_endless": _tiff(TIFF_SIZE, endless=True),
    "tiff_no_tags": _tiff([]),
    "tiff_count_4_billion": _tiff([(256, 4, 2**32 - 1, 8), *TIFF_SIZE[1:]]),
    "tiff_cut": _encoded("TIFF")[:100],
    "tiff_animated": _animation("TIFF"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(PWNED) (w) file closefile\n%%EOF\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><image href="file:///etc/hostname"/></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(40),
    "ico": b"\0\0\1\0\1\0" + bytes(40),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "avif": b"\0\0\0\x20ftypavif" + bytes(40),
    "pickle": b"\x80\x02cos\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR.",
    "safetensors": struct.pack("<Q", 2) + b"{}",
}
# Pillow may show these, as viewers do, or refuse them
LEGAL: dict[str, bytes] = {
    "jpeg_damaged": JPEG[:200] + bytes(64) + JPEG[264:],
    "mpo_cut": JPEG[:-2] + b"\xff\xe2\x00\x10MPF\0II*\0\x08\0\0\0" + b"\xff\xd9",
    "png_palette_missing": _png(8, 8, bytes(999), color=3),
    "png_16_bit": _encoded("PNG", Image.fromarray(np.full((8, 8), 40_000, np.uint16))),
    "png_1_bit": _encoded("PNG", Image.new("1", (8, 8))),
    "png_1_x_1": _encoded("PNG", Image.new("RGB", (1, 1))),
    "png_wide": _encoded("PNG", Image.new("RGB", (16_000, 1))),
    "png_rgba": _encoded("PNG", Image.new("RGBA", (8, 8), (9, 9, 9, 0))),
    "png_palette": _encoded("PNG", Image.new("P", (8, 8))),
    "jpeg_cmyk": _encoded("JPEG", Image.new("CMYK", (8, 8))),
    "jpeg_grey": _encoded("JPEG", Image.new("L", (8, 8))),
    "jpeg_exif_6": _exif(0x0112, 6),
    "jpeg_exif_99": _exif(0x0112, 99),
    "jpeg_exif_text": _exif(0x010F, "\x1b[2J\n"),
    "jpeg_exif_damaged": _exif(0x0112, 6).replace(b"Exif\0\0", b"Exif\0\xff"),
    "jpeg_trailing": JPEG + b"trailing",
    "tiff": _encoded("TIFF"),
}


SPECIAL: dict[str, tuple[Maker, str, tuple[int, ...]]] = {
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "pipe", (REFUSED,)),
    "folder_empty": (lambda folder: (folder / "empty").mkdir(), "empty", (INPUT,)),
    "folder_of_pipes": (lambda folder: ((folder / "d").mkdir(), os.mkfifo(folder / "d" / "a.png")), "d", (INPUT, REFUSED)),
    "folder_in_itself": (lambda folder: ((folder / "d").mkdir(), (folder / "d" / "d").symlink_to(".")), "d", (INPUT, REFUSED)),
    "folder_deep": (lambda folder: _deep(folder / "deep", 400), "deep", (INPUT, REFUSED)),
    "link_dangling": (lambda folder: (folder / "a.png").symlink_to("nowhere"), "a.png", (INPUT,)),
    "link_loop": (lambda folder: (folder / "a.png").symlink_to("a.png"), "a.png", (INPUT,)),
    "link_device": (lambda folder: (folder / "a.png").symlink_to("/dev/zero"), "a.png", (REFUSED,)),
    "sparse_64_gb": (lambda folder: _sparse(folder / "a.png"), "a.png", (REFUSED,)),
    "name_escapes": (lambda folder: (folder / "\x1b[2J\n.png").write_bytes(b"x"), "\x1b[2J\n.png", (REFUSED,)),
    "name_not_utf8": (
        lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"x"),
        "\udcff.png",
        (REFUSED,),
    ),
    "folder_with_bad_one": (
        lambda folder: ((folder / "d").mkdir(), (folder / "d" / "a.png").write_bytes(PNG[:60])),
        "d",
        (REFUSED,),
    ),
}


def _deep(folder: Path, depth: int) -> None:
    for _ in range(depth):
        folder = folder / "d"
    folder.mkdir(parents=True)


def _sparse(path: Path) -> None:
    path.write_bytes(PNG[:8])
    os.truncate(path, 1 << 36)


def _special_entries() -> list[Entry]:
    return [
        Entry(f"image/{name}", make, (command(["predict", "BASE/tiny.onnx", argument], *codes, names=_shown(argument)),))
        for name, (make, argument, codes) in SPECIAL.items()
    ]


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


# --- names and options: nothing is read ---

NAMES = {
    "parents": "../../x", "absolute": "/no/such", "nul": "a\\0b", "newline": "a\nb", "escapes": "\x1b[31mred",
        "surrogate": "\udcff", "of_5000": LONG,
    "empty": "", "dot": ".", "dots": "..", "slash": "/", "dev_zero": "/dev/zero", "dev_stdin": "/dev/stdin",
        "proc": "/proc/self/mem", "star": "*", "brackets": "[",
    "tilde": "~", "percent": "%s%n", "braces": "{0.__class__}", "shell": "$(touch PWNED)", "quotes": "'; touch PWNED; '",
        "unicode": "vit_b\u0661\u0666", "wide": "\uff56\uff49\uff54_\uff42\uff11\uff16",
    "digits": "vit_b" + "9" * 4000, "suffix": "vit_b16" + "_reg4" * 500, "dotted": "vit_b16" + ".a" * 2000,
        "hub_parents": "hf-hub:../../x", "hub_empty": "hf-hub:",
    "hub_url": "hf-hub:http://127.0.0.1:9/x", "hub_revision": "hf-hub:a/b@../../x", "hub_long": "hf-hub:" + LONG,
        "hub_newline": "hf-hub:a/b\nc",
    "url": "http://127.0.0.1:9/x.pth", "file_url": "file:///etc/hostname",
}  # fmt: skip
NAME_CODES = (INPUT, 5, REFUSED)  # 5: the Hub cannot be reached
SETS = [
    "heads=true", "heads=0", "heads=-1", "heads=a", "heads=", "heads", "=3", "", "heads=1e999", "heads=nan",
    "heads=" + "9" * 5000, "heads=2.5", "heads=[1]",
    "heads={}", "heads=None", "heads=²", "heads=٣", "dim=true", "dim=1000000000", "dim=99999999999999999999", "depth=0",
    "depth=1000000", "image_size=?x",
    "image_size=0", "image_size=0,0", "image_size=-1", "image_size=1,2,3", "image_size=x", "image_size=99999999999",
    "image_size=16x", "image_size=,",
    "patch_size=0", "patch_size=true", "resize=0,0", "resize=", "resize=../x", "pool=false", "pool=", "registers=1,2",
    "registers=-1", "act=inf", "act=os.system",
    "norm_eps=inf", "norm_eps=-1", "norm_eps=0x1", "norm_eps=nan", "num_classes=-1", "num_classes=1e30", "nothing=1",
    "__class__=1", "name=../../x",
    "problem_type=1", "class_token=2", "class_token=yes", "mean=1", "\x1b[2J=1", "a" * 5000 + "=1", "heads=" + "a" * 5000,
    "dropout=2", "mlp=1", "pos=1",
    "grid=0,0", "grid=a", "grid=-1,-1", "grid=9999999,9999999", "channels=0", "channels=99999999999",
]  # fmt: skip
OPTIONS: dict[str, tuple[str, ...]] = {
    "out_parents": ("create", "BASE/tiny.toml", "-o", "../nowhere/x"),
    "out_long": ("create", "BASE/tiny.toml", "-o", LONG),
    "out_empty": ("create", "BASE/tiny.toml", "-o", ""),
    "out_device": ("convert", "BASE/tiny", "-o", "/dev/zero"),
    "out_null": ("convert", "BASE/tiny", "-o", "/dev/null"),
    "out_proc": ("convert", "BASE/tiny", "-o", "/proc/x.safetensors"),
    "seed_huge": ("create", "BASE/tiny.toml", "-o", "OUT/m", "--seed", "9" * 5000),
    "seed_text": ("create", "BASE/tiny.toml", "-o", "OUT/m", "--seed", "x"),
    "top_huge": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--top", "9" * 30),
    "threads_huge": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--threads", "9" * 30),
    "mean_text": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--mean", "a"),
    "mean_nan": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--mean", "nan"),
    "mean_many": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--mean", "1,2,3,4,5"),
    "std_0": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--std", "0"),
    "std_negative": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--std", "-1"),
    "size_0": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--size", "0"),
    "size_huge": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--size", "999999999"),
    "size_text": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--size", "axb"),
    "size_superscript": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--size", "²"),
    "crop_0": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--crop", "0"),
    "crop_2": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--crop", "2"),
    "crop_nan": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--crop", "nan"),
    "labels_missing": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--labels", "nowhere.txt"),
    "labels_two": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--labels", "a,b"),
    "preprocess_missing": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--preprocess", "nowhere.json"),
    "preprocess_long": ("predict", "BASE/tiny.onnx", "BASE/image.png", "--preprocess", LONG),
    "outputs_block": ("export", "BASE/tiny", "--onnx", "-o", "OUT/m.onnx", "--outputs", "block.²"),
    "outputs_digits": ("export", "BASE/tiny", "--onnx", "-o", "OUT/m.onnx", "--outputs", "block." + "9" * 5000),
    "outputs_many": ("export", "BASE/tiny", "--onnx", "-o", "OUT/m.onnx", "--outputs", ",".join(["logits"] * 5000)),
    "outputs_escapes": ("export", "BASE/tiny", "--onnx", "-o", "OUT/m.onnx", "--outputs", "\x1b[2J"),
    "fixed_unknown": ("verify", "BASE/foreign.onnx", "--against", "BASE/tiny", "--fixed", "\x1b[2J"),
    "plot_parents": ("verify", "BASE/tiny.onnx", "--plot", "nowhere/x.png"),
    "where_deep": ("list", "--where", "(" * 5000 + "params<1" + ")" * 5000),
    "where_long": ("list", "--where", " and ".join(["params<1e9"] * 20_000)),
    "where_digits": ("list", "--where", "params<" + "9" * 5000),
    "where_code": ("list", "--where", "__import__('os').system('touch PWNED')"),
    "sort_code": ("list", "--sort", "__class__"),
    "glob_stars": ("list", "*a" * 60 + "b"),
    "allow_drop_long": ("convert", "BASE/tiny", "-o", "OUT/m", "--allow-drop", "*" * 200 + "x"),
    "accept_unknown": ("convert", "BASE/tiny", "-o", "OUT/m", "--accept", "\x1b[2J"),
    "to_path": ("convert", "BASE/tiny", "-o", "OUT/m", "--to", "../../x"),
    "publish_parents": ("publish", "BASE/tiny", "../..", "--dry-run", "OUT/r"),
    "publish_newline": ("publish", "BASE/tiny", "a/b\nc", "--dry-run", "OUT/r"),
    "publish_long": ("publish", "BASE/tiny", f"a/{LONG}", "--dry-run", "OUT/r"),
    "pull_parents": ("pull", "../../x"),
    "pull_escapes": ("pull", "a/\x1b[2J"),
    "zoo_missing": ("list", "--zoo", "nowhere"),
    "zoo_device": ("list", "--zoo", "/dev/zero"),
    "zoo_long": ("list", "--zoo", LONG),
    "completion": ("completion", "../../x"),
}
OPTION_CODES = (INPUT, 5, REFUSED, 8)
LEGAL_OPTIONS = {"top_huge", "outputs_many"}  # all classes; the same output once


def _nothing(folder: Path) -> None:
    (folder / "note.txt").write_text("nothing is to be written here\n")


def _set_entries() -> list[Entry]:
    found = []
    for number, text in enumerate(SETS):
        name = "".join(c if c.isalnum() else "_" for c in text)[:24] or "empty"
        lines = (
            command(["show", "BASE/timm", "--set", text], INPUT, names=""),
            command(["show", "BASE/torchvision.pth", "--set", "heads=2", "--set", text], INPUT, names=""),
            command(["create", "BASE/tiny.toml", "-o", "OUT/m", "--set", text], INPUT, names=""),
        )
        found.append(Entry(f"set/{number:02}_{name}", _nothing, lines))
    return found


ENTRIES = [
    *(Entry(f"image/{name}", content("a.png", data), (command("predict BASE/tiny.onnx a.png", REFUSED, INPUT),)) for name,
    data in IMAGES.items()),
    *(
        Entry(f"image/legal_{name}", content("a.png", data), (command("predict BASE/tiny.onnx a.png", 0, INPUT, REFUSED),))
        for name, data in LEGAL.items()
    ),
    *_special_entries(),
    *(
        Entry(f"name/{key}", _nothing, (command(["show", name], *NAME_CODES, names=""), command(["export", name, "--onnx",
        "-o", "OUT/m.onnx"], *NAME_CODES, names=""),
              command(["predict", "BASE/tiny.onnx", name], INPUT, REFUSED, names="")))
        for key, name in NAMES.items()
    ),
    *_set_entries(),
    *(Entry(f"option/{key}", _nothing, (command(arguments, *((0,) if key in LEGAL_OPTIONS else OPTION_CODES), names=""),))
      for key, arguments in OPTIONS.items()),
]  # fmt: skip
