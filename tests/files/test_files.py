"""Tests of the package that opens untrusted files and writes ours: hostile files are refused, no code runs, no data is lost."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import types
import uuid
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.disks import small_disk_at
from support.planted import Planted
from vit_zoo.errors import CannotWrite, InputError, RefusedContent
from vit_zoo.files import (
    SafetensorsFile,
    Staged,
    Stored,
    images,
    read_image,
    read_json,
    read_torch,
    sniff,
    staging_folder,
    write_text,
)
from vit_zoo.files.safetensors import MAX_HEADER, write_safetensors

# --- safetensors ---


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def packed(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header, as JSON or as raw bytes, and a length that may be wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


WHOLE = packed({"a": entry(0, 8, [2]), "b": entry(8, 16, [2, 1])}, b"\0" * 16)
HOSTILE = {
    "empty": (b"", "empty"),
    "four bytes": (WHOLE[:4], "truncated"),
    "cut in the header": (WHOLE[:40], "truncated"),
    "cut in the data": (WHOLE[:-1], "truncated"),
    "trailing bytes": (WHOLE + b"\0", "after its last tensor"),
    "another file behind it": (WHOLE + WHOLE, "after its last tensor"),
    "header of 2**63 bytes": (packed(b"{}", length=2**63), "truncated"),
    "header of 5 MB": (packed(b"{" + b" " * MAX_HEADER + b"}"), "the limit is"),
    "hole": (packed({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"\0" * 12), "hole"),
    "hole at the start": (packed({"a": entry(4, 8, [1])}, b"\0" * 8), "hole"),
    "overlap": (packed({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, b"\0" * 12), "overlaps"),
    "the same bytes twice": (packed({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, b"\0" * 8), "overlaps"),
    "negative place": (packed({"a": entry(-4, 0, [1])}), "impossible"),
    "negative side": (packed({"a": entry(0, 4, [-1, -1])}, b"\0" * 4), "impossible"),
    "shape that overflows": (packed({"a": entry(0, 4, [2**47, 2**47])}, b"\0" * 4), "bytes for shape"),
    "side of 2**64": (packed({"a": entry(0, 0, [2**64])}), "impossible"),
    "shape and bytes differ": (packed({"a": entry(0, 8, [3])}, b"\0" * 8), "bytes for shape"),
    "true as a place": (packed({"a": {**entry(0, 4, [1]), "data_offsets": [False, 4]}}, b"\0" * 4), "impossible"),
    "fraction as a side": (packed({"a": entry(0, 4, [1.0])}, b"\0" * 4), "impossible"),
    "unknown type": (packed({"a": entry(0, 4, [1], "Q7")}, b"\0" * 4), "has type Q7"),
    "integers": (packed({"a": entry(0, 4, [1], "I32")}, b"\0" * 4), "has type I32"),
    "duplicate key": (packed(b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 4, [1])).encode(),) * 2), b"\0" * 4), "'a' twice"),
    "no offsets": (packed({"a": {"dtype": "F32", "shape": [1]}}), "malformed entry"),
    "another field": (packed({"a": {**entry(0, 4, [1]), "x": 1}}, b"\0" * 4), "malformed entry"),
    "entry that is a list": (packed({"a": [1]}), "malformed entry"),
    "metadata that is not text": (packed({"__metadata__": {"a": 1}}), "metadata"),
    "metadata that is a list": (packed({"__metadata__": []}), "metadata"),
    "not JSON": (packed(b"{nonsense}"), "not valid JSON"),
    "not UTF-8": (packed(b'{"\xff\xfe":1}'), "not valid JSON"),
    "deep JSON": (packed(b'{"a":' + b"[" * 200_000), "not valid JSON"),
    "integer of 5,000 digits": (packed(b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "21,000 tensors": (packed({str(i): entry(0, 0, [0]) for i in range(21_000)}), "21,000 tensors"),
    "newline in a name": (packed({"a\nvitzoo: ok": entry(0, 9, [1])}, b"\0" * 9), "a\\nvitzoo: ok"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
    "HTML": (b"<!DOCTYPE html><html>Not found</html>", "HTML page"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_safetensors_are_refused_in_one_line(case, tmp_path):
    content, fragment = HOSTILE[case]
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(RefusedContent) as found:
        for tensor in SafetensorsFile(file).tensors.values():
            tensor.array()  # a type that weights do not have is refused where its values are wanted
    assert fragment in str(found.value)
    assert str(file) in str(found.value)
    assert "\n" not in str(found.value)


def test_a_valid_safetensors_file_is_read(tmp_path):
    file = tmp_path / "whole.safetensors"
    file.write_bytes(WHOLE)
    assert {name: tensor.shape for name, tensor in SafetensorsFile(file).tensors.items()} == {"a": (2,), "b": (2, 1)}


def test_a_file_that_shrinks_during_a_copy_is_named_in_the_error(tmp_path):
    source, target = tmp_path / "source.safetensors", tmp_path / "copy.safetensors"
    source.write_bytes(WHOLE)
    tensors = SafetensorsFile(source).tensors
    source.write_bytes(WHOLE[:-12])
    with pytest.raises(RefusedContent, match=r"source\.safetensors: became shorter"), Staged(target) as staged:
        write_safetensors(staged, tensors, {})
    assert [file.name for file in tmp_path.iterdir()] == ["source.safetensors"]


# --- what a file is ---


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


KINDS = {
    "empty": b"",
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "HTML page": b"\n  <!DOCTYPE html>\n<html>",
    "pickle": pickle.dumps([1]),
    "zip": zipped("readme.txt"),
    "damaged zip": zipped("data.pkl")[:-30],
    "npz": zipped("x.npy"),
    "torch": zipped("archive/data.pkl", "archive/data/0"),
    "torchscript": zipped("m/data.pkl", "m/constants.pkl"),
    "pt2": zipped("m/archive_format", "m/data.pkl"),
    "npy": b"\x93NUMPY\x01\0",
    "hdf5": b"\x89HDF\r\n",
    "json": b' {"a": 1}',
    "safetensors": WHOLE,
    "image": b"\x89PNG\r\n\x1a\n",
    "onnx": b"\x08\x0a\x12\x06vitzoo",
    "unknown": b"\0\0\0\0",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_a_file_depends_on_its_content_and_not_on_its_name(kind, tmp_path):
    for suffix in (".safetensors", ".onnx", ".pth"):
        file = tmp_path / f"x{suffix}"
        file.write_bytes(KINDS[kind])
        assert sniff(file) == kind


def test_pipes_devices_and_link_loops_are_refused(tmp_path):
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path, error in (
        (pipe, RefusedContent),
        (Path("/dev/zero"), RefusedContent),
        (loop, InputError),
        (tmp_path / "no", InputError),
    ):
        for read in (sniff, read_json, read_image, SafetensorsFile):
            with pytest.raises(error):
                read(path)


JSON = {
    "not JSON": (b"{", "not valid JSON"),
    "a list": (b"[1]", "a JSON object"),
    "duplicate key": (b'{"a": 1, "a": 2}', "twice"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "deep": (b'{"a":' + b"[" * 200_000, "nested too deeply"),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not valid JSON"),
    "5 MB": (b'{"a": "' + b"x" * 5_000_000 + b'"}', "the limit is"),
    "empty": (b"", "not valid JSON"),
}


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused(case, tmp_path):
    content, fragment = JSON[case]
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=fragment):
        read_json(file)


# --- torch checkpoints ---


class Payload:
    """An object that runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def rezipped(file: Path, compression: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def encrypted(file: Path) -> None:
    """Set the encryption flag of every member, in the central directory and in the local header."""
    content = bytearray(file.read_bytes())
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(magic, at + 4)
    file.write_bytes(content)


def crowded(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive:
        for i in range(50_001):
            archive.writestr(f"archive/data/{i}", b"")


def flipped(file: Path, needle: bytes) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(needle) + 1] ^= 4
    file.write_bytes(content)


MARKED = torch.tensor([3.25, -7.5, 11.125])
TORCH = {
    "a command": (lambda f: torch.save({"a": Payload(f.parent / "PWNED")}, f), "would run code"),
    "a command under a tensor": (
        lambda f: torch.save({"a": torch.ones(2), "b": [Payload(f.parent / "PWNED")]}, f),
        "would run code",
    ),
    "a module": (lambda f: torch.save(nn.Linear(2, 2), f), "would run code"),
    "deflated members": (lambda f: (torch.save({"a": torch.zeros(2**20)}, f), rezipped(f, zipfile.ZIP_DEFLATED)), "compressed"),
    "50,000 other members": (lambda f: (torch.save({"a": MARKED}, f), crowded(f)), "members; the limit is 50,000"),
    "a view of 4 TB": (lambda f: torch.save({"a": torch.zeros(1).expand(2**40)}, f), "'a' claims more values"),
    "a flipped bit": (lambda f: (torch.save({"a": MARKED}, f), flipped(f, MARKED.numpy().tobytes())), "checksum"),
    "half of it": (lambda f: (torch.save({"a": MARKED}, f), f.write_bytes(f.read_bytes()[:600])), "zip archive"),
    "encrypted members": (lambda f: (torch.save({"a": MARKED}, f), encrypted(f)), "zip archive"),
    "no storage": (lambda f: torch.save({"a": torch.empty(3, device="meta")}, f), "'a' has no values"),
    "a sparse tensor": (lambda f: torch.save({"a": torch.eye(2).to_sparse()}, f), "'a' is not a dense tensor"),
    "integers": (lambda f: torch.save({"a": torch.ones(2, dtype=torch.int64)}, f), "int64"),
    "complex numbers": (lambda f: torch.save({"a": torch.ones(2, dtype=torch.complex64)}, f), "complex64"),
    "a list": (lambda f: torch.save([MARKED], f), "expected a state dict, got list"),
    "numbers alone": (lambda f: torch.save({"epoch": 3}, f), "expected a state dict, got dict without tensors"),
    "numbers as names": (lambda f: torch.save({1: MARKED}, f), "expected a state dict"),
    "a bare pickle": (lambda f: f.write_bytes(pickle.dumps(Payload(f.parent / "PWNED"))), "zip archive"),
    "torch's format before 1.6": (lambda f: torch.save({"a": MARKED}, f, _use_new_zipfile_serialization=False), "zip archive"),
}


@pytest.mark.parametrize("case", TORCH)
def test_hostile_torch_checkpoints_are_refused_and_nothing_in_them_runs(case, tmp_path):
    write, fragment = TORCH[case]
    file = tmp_path / "model.pth"
    write(file)
    with pytest.raises(RefusedContent) as found:
        for tensor in read_torch(file).values():
            tensor.array()
    assert fragment in str(found.value)
    assert "weights_only" not in str(found.value)  # torch's advice to load it anyway
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


class Reduced:
    """Is pickled as a call of a class that is known to be data."""

    def __init__(self, kind, *arguments):
        self.call = kind, arguments

    def __reduce__(self):
        return self.call


BESIDE = {
    "numbers of NumPy": (np.float64(0.5), np.float32(1), np.int64(3), np.bool_(1), np.str_("a")),
    "arrays of NumPy": {"best": np.arange(3.0), "type": np.dtype("int16"), "generator": np.random.RandomState(0).get_state()},
    "paths": [PurePosixPath("data"), Path()],
    "dates": {"start": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "spent": dt.timedelta(1)},
    "settings": types.SimpleNamespace(lr=decimal.Decimal("0.1"), seeds=frozenset({1})),
    "dictionaries with defaults": collections.defaultdict(list, {"loss": [1.0, 2.0]}),
    "a queue": collections.deque([1.0, 2.0], maxlen=9),
    "an identifier": uuid.UUID(int=7),
    "a class": {"type": float},
    "a petabyte": Reduced(bytes, 2**50),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_data_beside_the_weights_is_skipped(kind, tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"model": {"a": MARKED}, "beside": BESIDE[kind], "b": MARKED}, file)
    assert list(read_torch(file)) == ["model.a", "b"]


@pytest.mark.parametrize("kind", ["numbers of NumPy", "a petabyte", "settings"])
def test_code_beside_data_is_named_without_the_data(kind, tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"model": {"a": MARKED}, "beside": [BESIDE[kind], Payload(tmp_path / "PWNED")]}, file)
    with pytest.raises(RefusedContent, match=r"it refers to \w+\.system \(in the environment that trained it.*torch\.save"):
        read_torch(file)
    assert not (tmp_path / "PWNED").exists()


def test_tensors_beside_the_weights_have_their_place_in_their_names(tmp_path):
    file = tmp_path / "model.pth"
    optimizer = {"state": {0: {"exp_avg": MARKED}}, "param_groups": [{"lr": 1}]}
    torch.save([{"net": {"a": MARKED}}, {"opt": optimizer, "ema": collections.defaultdict(dict, {"a": MARKED})}, MARKED], file)
    assert list(read_torch(file)) == ["0.net.a", "1.ema.a"]


DEEP: dict = {}
for _ in range(40):
    DEEP = {"x": DEEP}
DOUBLED = {"a": MARKED}
for _ in range(14):
    DOUBLED = {"x": DOUBLED, "y": DOUBLED}  # 16 384 times the same dictionary, in a file of a few bytes


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (DEEP, "nested too deeply"),
        ([DOUBLED, DOUBLED], "more than 20,000 tensors"),
        ({"a": {"b": MARKED}, "a.b": MARKED}, "contains 'a.b' twice"),
    ],
    ids=["deep", "doubled", "the same name"],
)
def test_nestings_have_limits(content, fragment, tmp_path):
    file = tmp_path / "model.pth"
    torch.save(content, file)
    with pytest.raises(RefusedContent, match=fragment):
        read_torch(file)


def test_the_hostile_payload_does_run_with_pickle(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "PWNED")))
    assert (tmp_path / "PWNED").exists()


def test_a_checkpoint_is_read_from_a_wrapper(tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"state_dict": {"a": MARKED, "b": torch.ones(2, 3).to(torch.bfloat16).T}, "epoch": 3}, file)
    found = read_torch(file)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()}
    assert shapes == {"state_dict.a": ("F32", (3,)), "state_dict.b": ("BF16", (3, 2))}
    assert found["state_dict.a"].array().tolist() == MARKED.tolist()


def test_a_torchscript_archive_is_recognised_and_not_run(folder):
    file = folder / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 deprecates TorchScript
        torch.jit.save(torch.jit.script(Planted()), file)
    Path("PWNED").unlink(missing_ok=True)
    assert sniff(file) == "torchscript"
    with pytest.raises(RefusedContent):
        read_torch(file)
    assert not Path("PWNED").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(file)
    assert Path("PWNED").exists()  # so that was a real trap


# --- writing ---


def child(code: str, *, before: tuple[str, ...] = (), **options: object) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python that may kill itself."""
    line = [*before, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_crash_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")

    def fill(file: io.BufferedIOBase) -> None:
        file.write(b"half")
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"), Staged(target) as staged:
        staged.write(fill)
    with pytest.raises(KeyboardInterrupt), staging_folder(target) as beside:
        (beside / "model.onnx_data").write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["model.onnx"]


KILL = """
    import os, signal
    from pathlib import Path
    from vit_zoo.files import Staged, staging_folder

    def fill(file):
        file.write(b"half")
        file.flush()
        {moment}

    target = Path("model.onnx")
    with staging_folder(target), Staged(target) as staged:
        staged.write(fill)
        {late}
        staged.commit()
"""


@pytest.mark.parametrize("late", [False, True])
def test_kill_9_keeps_the_old_file_and_the_next_run_removes_the_temporary_one(late, tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    dead = child(KILL.format(moment="pass" if late else kill, late=kill if late else "pass"), cwd=tmp_path)
    assert dead.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert len(names(tmp_path)) == 3  # its temporary file and folder
    write_text(target, "new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["model.onnx"]


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
    kept = (f".x.vitzoo-{os.getpid()}-00000000.tmp", ".x.vitzoo-1-00000000.tmp", ".x.tmp", "x.vitzoo-999999999-00000000.tmp")
    cleared = (".x.vitzoo-999999999-00000000.tmp", f".x.vitzoo-{10**30}-00000000.tmp")
    for name in (*kept, *cleared):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".y.vitzoo-999999999-00000000.tmp").mkdir()
    write_text(tmp_path / "target", "new")
    assert names(tmp_path) == sorted((*kept, "target"))


FILL = """
    from pathlib import Path
    from vit_zoo.errors import CannotWrite
    from vit_zoo.files import Staged

    try:
        with Staged(Path("model.onnx")) as staged:
            staged.write(lambda file: [file.write(bytes(65536)) for _ in range(64)])
            staged.commit()
    except CannotWrite as error:
        print(error)
"""


def test_a_limit_on_file_sizes_loses_nothing(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"old")
    limited = child(FILL, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)))
    assert limited.stdout == "model.onnx: File too large\n", limited.stderr
    assert (tmp_path / "model.onnx").read_bytes() == b"old"
    assert names(tmp_path) == ["model.onnx"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    with small_disk_at(tmp_path / "disk", "1m") as disk:
        yield disk


def test_a_full_disk_loses_nothing(small_disk):
    (small_disk / "model.onnx").write_bytes(b"old")
    full = child(FILL, cwd=small_disk)
    assert full.stdout == "model.onnx: no space left: the disk is full\n", full.stderr
    assert (small_disk / "model.onnx").read_bytes() == b"old"
    assert names(small_disk) == ["model.onnx"]
    with pytest.raises(CannotWrite, match="not enough disk space: needs 2,000,000 bytes"):
        Staged(small_disk / "model.onnx", need=2_000_000)


def test_a_read_only_folder_is_an_error_before_any_work(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv is not here")
        before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    closed = child(FILL, before=before, cwd=folder)
    assert closed.stdout == ".: the folder is not writable\n", closed.stderr
    assert names(folder) == []


def test_links_folders_and_pipes_are_not_written_through(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for name, error in (
        ("link", CannotWrite), ("dangling", CannotWrite), ("folder", CannotWrite), ("pipe", CannotWrite),
        ("no/such/file", InputError), ("real/file", InputError), ("x" * 300, CannotWrite),
    ):  # fmt: skip
        with pytest.raises(error):
            Staged(tmp_path / name)
        with pytest.raises(error), staging_folder(tmp_path / name):
            pytest.fail("was opened")
    assert names(tmp_path) == before
    assert (tmp_path / "real").read_bytes() == b"old"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_modes_follow_the_umask(mask, tmp_path):
    old = os.umask(mask)
    try:
        write_text(tmp_path / "config.json", "{}")
        with Staged(tmp_path / "model.safetensors") as staged:
            write_safetensors(staged, {"a": Stored("F32", (1,), lambda: np.zeros(1, np.float32))}, {})
            staged.commit()
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


# --- images ---

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file whose header states this size."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
FRAMES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
REFUSED = {
    "empty": (b"", "cannot be read as an image"),
    "HTML": (b"<html></html>", "cannot be read as an image"),
    "half a JPEG": (saved(NOISE, "JPEG")[:2000], "cannot be read as an image"),
    "half a PNG": (saved(NOISE, "PNG")[:5000], "cannot be read as an image"),
    "a program for Ghostscript": (saved(NOISE, "EPS"), "cannot be read as an image"),
    "animated GIF": (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "animation"),
    "animated WebP": (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "animation"),
    "animated PNG": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "animation"),
    "81 million pixels": (png_header(9000, 9000), "9000x9000 pixels; the limit is 64,000,000"),
    "400 million pixels": (png_header(20_000, 20_000), "too many pixels"),
    "one row of 20,000": (png_header(20_000, 1), "20000x1 pixels"),
    "floats": (saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "floating-point"),
    "32-bit grey": (saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "outside 0..65535"),
    "negative grey": (saved(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF"), "outside 0..65535"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_are_refused(case, tmp_path):
    content, fragment = REFUSED[case]
    file = tmp_path / "image.png"
    file.write_bytes(content)
    with pytest.raises(RefusedContent) as found:
        read_image(file)
    assert fragment in str(found.value)
    assert str(file) in str(found.value)


def test_what_pillow_says_of_damaged_images_is_not_printed(tmp_path):
    many_samples = bytearray(saved(Image.new("RGB", (4, 4)), "TIFF"))
    at = many_samples.index(b"\x15\x01\x03\x00\x01\x00\x00\x00\x03\x00")  # the tag SamplesPerPixel
    many_samples[at + 8] = 127
    (tmp_path / "samples").write_bytes(many_samples)  # Pillow logs an error
    (tmp_path / "large").write_bytes(saved(Image.new("1", (9500, 9500)), "PNG"))  # Pillow warns
    code = """from pathlib import Path; from vit_zoo.errors import RefusedContent; from vit_zoo.files import read_image
for name in ("samples", "large"):
    try: read_image(Path(name))
    except RefusedContent: print("refused")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\nrefused\n", "")


def test_the_filters_of_warnings_are_restored_by_the_last_thread():
    """They belong to all threads; the first one to decode an image may be done before another."""
    filters = list(warnings.filters)
    first, second = images._decoding("first"), images._decoding("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with warnings.catch_warnings(record=True) as shown:
        warnings.warn("of an image", stacklevel=1)
    second.__exit__(None, None, None)
    assert not shown
    assert warnings.filters == filters


def test_paths_that_are_not_images(tmp_path):
    for path, fragment in ((tmp_path, "got a folder"), (tmp_path / "no.png", "no such file")):
        with pytest.raises(InputError, match=fragment):
            read_image(path)


RGBA = Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [0, 0, 0, 128]]], np.uint8))
SEEN = {
    "hidden colour is white": (saved(RGBA, "PNG"), [[[255, 255, 255], [255, 0, 0], [127, 127, 127]]]),
    "transparent grey": (saved(RGBA.convert("LA"), "PNG"), [[[255] * 3, [76] * 3, [127] * 3]]),
    "transparent palette entry": (saved(Image.new("P", (1, 1)), "PNG", transparency=0), [[[255, 255, 255]]]),
    "16-bit grey": (saved(Image.fromarray(np.array([[0, 128, 129, 40_000, 65_535]], np.uint16)), "PNG"), [[0, 0, 1, 156, 255]]),
    "grey": (saved(Image.fromarray(PIXELS[..., 0]), "PNG"), PIXELS[..., 0].tolist()),
    "one bit": (saved(Image.fromarray(np.array([[True, False]])), "PNG"), [[[255] * 3, [0] * 3]]),
    "CMYK": (saved(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [[[255, 0, 0]]]),
    "a phone's photo with a second view": (
        saved(Image.new("RGB", (8, 8), "white"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        np.full((8, 8, 3), 255).tolist(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_images_are_read_as_they_are_displayed(case, tmp_path):
    content, pixels = SEEN[case]
    file = tmp_path / "image"
    file.write_bytes(content)
    assert np.asarray(read_image(file)).tolist() == pixels


UPRIGHT = {  # EXIF 2.3, table 6: what turns the stored rows upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "image.png"
    file.write_bytes(saved(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert np.asarray(read_image(file)).tolist() == UPRIGHT[orientation](PIXELS).tolist()
