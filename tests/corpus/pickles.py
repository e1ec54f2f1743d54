"""Bad checkpoints of torch: pickles that run code, zip archives, and TorchScript."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus.entry import INPUT, REFUSED, Entry, Maker, command, content

MARK = "PWNED"  # what every payload makes
TOUCH = f"touch {MARK}"

# --- pickles that run code ---


def _calls(module: str, name: str, *arguments: object) -> bytes:
    """Return the opcodes of a call, protocol 0: what `__reduce__` gives."""
    packed = b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + packed + b"tR"


def _stack_global(module: str, name: str, *arguments: object) -> bytes:
    """Return the opcodes of a call by STACK_GLOBAL, protocol 4."""
    names = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return names + b"\x93(" + b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments) + b"tR"


OPEN = f"open({MARK!r}, 'w')"
PAYLOADS = {
    "os_system": _calls("os", "system", TOUCH),
    "posix_system": _calls("posix", "system", TOUCH),
    "nt_path": _calls("os.path", "os.system", TOUCH),
    "subprocess_popen": _calls("subprocess", "Popen", ["touch", MARK]),
    "subprocess_run": _calls("subprocess", "run", ["touch", MARK]),
    "builtins_exec": _calls("builtins", "exec", OPEN),
    "builtins_eval": _calls("builtins", "eval", OPEN),
    "builtins_open": _calls("builtins", "open", MARK, "w"),
    "io_open": _calls("io", "open", MARK, "w"),
    "python2_builtin": _calls("__builtin__", "eval", OPEN),
    "builtins_getattr": _calls("builtins", "getattr", 1, "real"),
    "builtins_import": _calls("builtins", "__import__", "antigravity"),
    "builtins_compile": _calls("builtins", "compile", OPEN, "x", "exec"),
    "runpy": _calls("runpy", "_run_code", OPEN, {}),
    "runpy_path": _calls("runpy", "run_path", "payload.py"),
    "code_interpreter": _calls("code", "interact"),
    "pty_spawn": _calls("pty", "spawn", ["touch", MARK]),
    "timeit": _calls("timeit", "timeit", OPEN),
    "pdb": _calls("pdb", "run", OPEN),
    "cprofile": _calls("cProfile", "runctx", OPEN, {}, {}),
    "bdb": _calls("bdb", "Bdb.run", OPEN),
    "uuid": _calls("uuid", "_get_command_stdout", "touch", MARK),
    "osx_support": _calls("_osx_support", "_read_output", TOUCH),
    "imaplib": _calls("imaplib", "IMAP4_stream", TOUCH),
    "multiprocessing": _calls("multiprocessing.util", "spawnv_passfds", b"/bin/touch", [b"touch", MARK.encode()], []),
    "asyncio": _calls("asyncio.unix_events", "_UnixSubprocessTransport._start", TOUCH),
    "shutil_rmtree": _calls("shutil", "rmtree", "."),
    "os_remove": _calls("os", "remove", "model.pth"),
    "pip_main": _calls("pip", "main", ["download", "x"]),
    "importlib": _calls("importlib", "import_module", "this"),
    "ctypes": _calls("ctypes", "CDLL", "libevil.so"),
    "socket": _calls("socket", "create_connection", ("127.0.0.1", 9)),
    "webbrowser": _calls("webbrowser", "open", "http://127.0.0.1"),
    "pickle_loads": _calls("pickle", "loads", pickle.dumps(1)),
    "torch_load": _calls("torch", "load", "model.pth"),
    "torch_hub": _calls("torch.hub", "load", "x/y", "z"),
    "torch_jit": _calls("torch.jit", "load", "model.pth"),
    "torch_from_file": _calls("torch", "from_file", MARK, True, 4),
    "torch_collect_env": _calls("torch.utils.collect_env", "run", TOUCH),
    "torch_dynamo": _calls("torch._dynamo.guards", "GuardBuilder.get", OPEN),
    "torch_bottleneck": _calls("torch.utils.bottleneck.__main__", "run_autograd_prof", OPEN, {}),
    "torch_config": _calls("torch.utils._config_module", "load_config", pickle.dumps(1)),
    "numpy_load": _calls("numpy", "load", "x.npy"),
    "numpy_runstring": _calls("numpy.testing._private.utils", "runstring", OPEN, {}),
    "numpy_f2py": _calls("numpy.f2py.crackfortran", "myeval", OPEN, {}, {}),
    "functools_partial": _calls("functools", "partial", 1),
    "operator_attrgetter": _calls("operator", "attrgetter", "system"),
    "types_code": _calls("types", "CodeType", 0),
    "stack_global": _stack_global("os", "system", TOUCH),
    "stack_global_dotted": _stack_global("collections", "sys.modules", 1),
    "stack_global_joined": _stack_global("os", "path.os.system", TOUCH),
    "own_package": _stack_global("vit_zoo.files.atomic", "os.system", TOUCH),
    "own_entry_point": _stack_global("vit_zoo.cli.entry_point", "run", ["create", "vit_digits", "-o", MARK]),
    "inst": b"(" + pickle.dumps(TOUCH, 2)[2:-1] + b"ios\nsystem\n",
    "obj": b"(cos\nsystem\n" + pickle.dumps(TOUCH, 2)[2:-1] + b"o",
    "newobj": b"cos\nsystem\n(" + pickle.dumps(TOUCH, 2)[2:-1] + b"t\x81",
    "build": b"cargparse\nNamespace\n)\x81}(X\x09\x00\x00\x00__class__cos\nsystem\nub",
    "discarded_by_pop": _calls("os", "system", TOUCH) + b"0N",
    "memoised": _calls("os", "system", TOUCH) + b"q\x00h\x00",
    "extension": b"\x82\x01(" + pickle.dumps(TOUCH, 2)[2:-1] + b"tR",
    "persistent_id": pickle.dumps(("storage", "os.system", TOUCH), 2)[2:-1] + b"Q",
    "persistent_text": b"Pos.system\n",
}


def pickled(payload: bytes, *, protocol: int = 2) -> bytes:
    """Return a dictionary with a payload, as pickle."""
    return b"\x80" + bytes([protocol]) + b"}X\x01\x00\x00\x00a" + payload + b"s."


def _torch_zip(data: bytes, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings(action="ignore"):
        for name, value in (("archive/data.pkl", data), ("archive/byteorder", b"little"), *members, ("archive/version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(name), value, compression)
    return buffer.getvalue()


def _tensor(shape: tuple[int, ...], stride: tuple[int, ...], count: int, *, kind: str = "FloatStorage", offset: int = 0) -> bytes:
    """Return the opcodes of a tensor as torch pickles it: a view of storage 0."""
    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += _number(count) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(_number, side)) + b"t" for side in (shape, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"


def _number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def _views(count: int) -> bytes:
    """Return a state dict of tensors of 64 GiB each, of which every value is the same one."""
    names = (f"t{i}".encode() for i in range(count))
    tensor = _tensor((2**34,), (0,), 1)
    return b"\x80\x02}" + b"".join(b"X" + struct.pack("<I", len(name)) + name + tensor + b"s" for name in names) + b"."


def _one(tensor: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"s."


def _storage(data: bytes) -> tuple[str, bytes]:
    return ("archive/data/0", data)


def _flipped(data: bytes, needle: bytes, *, offset: int = 1) -> bytes:
    changed = bytearray(data)
    changed[data.index(needle) + offset] ^= 4
    return bytes(changed)


def _header_flag(data: bytes, bit: int) -> bytes:
    """Set a flag of every member, in the central directory and the local headers."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(magic)
        while at >= 0:
            changed[at + offset] |= bit
            at = data.find(magic, at + 4)
    return bytes(changed)


def _legacy(payload: bytes) -> bytes:
    """Return a file as torch wrote it before 1.6: a sequence of pickles."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(part, 2) for part in parts) + payload + pickle.dumps([], 2)


def _legacy_tar(payload: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in (("sys_info", pickle.dumps({}, 2)), ("pickle", payload), ("storages", payload), ("tensors", payload)):
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return buffer.getvalue()


EIGHT = np.arange(8, dtype=np.float32).tobytes()
GOOD = _torch_zip(_one(_tensor((2, 4), (4, 1), 8)), _storage(EIGHT))
TORCH: dict[str, bytes | Callable[[], bytes]] = {
    "bare_pickle": pickled(PAYLOADS["os_system"]),
    "bare_pickle_protocol_0": b"(dp0\nVa\n" + PAYLOADS["os_system"] + b"s.",
    "bare_pickle_protocol_5": b"\x80\x05\x95" + struct.pack("<Q", 10**15) + PAYLOADS["os_system"] + b".",
    "legacy": _legacy(pickled(PAYLOADS["os_system"])),
    "legacy_cut": _legacy(b"")[:40],
    "legacy_tar": _legacy_tar(pickled(PAYLOADS["os_system"])),
    "payload_after_stop": _torch_zip(_one(b"N") + PAYLOADS["os_system"] + b".", _storage(EIGHT)),
    "payload_in_ordered_dict": _torch_zip(_one(_tensor((1,), (1,), 1).replace(b")RtR", b"(" + PAYLOADS["os_system"] + b"tRtR"))),
    "payload_beside_weights": _torch_zip(
        b"\x80\x02}(X\x01\x00\x00\x00a" + _tensor((2, 4), (4, 1), 8) + b"X\x01\x00\x00\x00b" + PAYLOADS["stack_global"] + b"u.",
        _storage(EIGHT),
    ),
    "deflated_bomb": lambda: _torch_zip(
        _one(_tensor((2**26,), (1,), 2**26)), _storage(bytes(2**28)), compression=zipfile.ZIP_DEFLATED
    ),
    "pickle_bomb": _torch_zip(
        _one(b"]q\x00" + b"".join(b"(h" + bytes([i]) + b"h" + bytes([i]) + b"lq" + bytes([i + 1]) for i in range(60)))
    ),
    "memo_of_4_billion": _torch_zip(_one(b"Nr\xff\xff\xff\xff")),
    "long_of_1_gb": _torch_zip(_one(b"\x8b" + struct.pack("<i", 2**30))),
    "text_of_4_gb": _torch_zip(_one(b"X\xff\xff\xff\xff")),
    "bytes_of_8_eb": _torch_zip(_one(b"\x8e" + struct.pack("<Q", 2**63 - 1))),
    "deep_tuples": _torch_zip(_one(b"N" + b"\x85" * 200_000)),
    "views_of_3_tb": _torch_zip(_views(50), _storage(EIGHT[:4])),
    "view_beyond_the_storage": _torch_zip(_one(_tensor((2, 4), (4, 1), 8, offset=4)), _storage(EIGHT)),
    "view_before_the_storage": _torch_zip(_one(_tensor((2, 4), (4, 1), 8, offset=-1)), _storage(EIGHT)),
    "negative_stride": _torch_zip(_one(_tensor((2, 4), (-4, -1), 8)), _storage(EIGHT)),
    "negative_size": _torch_zip(_one(_tensor((-2, -4), (4, 1), 8)), _storage(EIGHT)),
    "size_2_to_the_64": _torch_zip(_one(_tensor((2**64,), (1,), 2**64)), _storage(EIGHT)),
    "size_overflows": _torch_zip(_one(_tensor((2**33, 2**33), (0, 0), 1)), _storage(EIGHT)),
    "storage_count_too_large": _torch_zip(_one(_tensor((2, 4), (4, 1), 10**12)), _storage(EIGHT)),
    "storage_too_short": _torch_zip(_one(_tensor((2, 4), (4, 1), 8)), _storage(EIGHT[:12])),
    "storage_missing": _torch_zip(_one(_tensor((2, 4), (4, 1), 8))),
    "storage_of_text": _torch_zip(_one(_tensor((2, 4), (4, 1), 8, kind="StringStorage")), _storage(EIGHT)),
    "storage_outside": _torch_zip(_one(_tensor((2, 4), (4, 1), 8).replace(b"X\x01\x00\x00\x000", b"X\x06\x00\x00\x00../../"))),
    "rank_of_500": _torch_zip(_one(_tensor((1,) * 500, (1,) * 500, 8)), _storage(EIGHT)),
    "size_of_text": _torch_zip(_one(_tensor((2, 4), (4, 1), 8).replace(_number(2), b"X\x01\x00\x00\x002")), _storage(EIGHT)),
    "crc_flipped": _flipped(GOOD, EIGHT),
    "crc_of_pickle_flipped": _flipped(GOOD, b"_rebuild_tensor_v2"),
    "encrypted": _header_flag(GOOD, 1),
    "strong_encryption": _header_flag(GOOD, 64),
    "cut_in_half": GOOD[: len(GOOD) // 2],
    "cut_at_the_end": GOOD[:-8],
    "garbage_before": b"x" * 64 + GOOD,
    "garbage_after": GOOD + b"x" * 70_000,
    "member_twice": _torch_zip(
        _one(_tensor((2, 4), (4, 1), 8)), _storage(EIGHT), ("archive/data.pkl", pickled(PAYLOADS["os_system"]))
    ),
    "member_outside": _torch_zip(_one(_tensor((2, 4), (4, 1), 8)), ("../../archive/data/0", EIGHT)),
    "no_pickle": _torch_zip(b""),
    "two_archives": _torch_zip(_one(b"N"), ("other/data.pkl", pickled(PAYLOADS["os_system"]))),
    "members_70k": lambda: _torch_zip(_one(b"N"), *((f"archive/data/{i}", b"") for i in range(70_000))),
    "end_record_lies": GOOD[:-12] + struct.pack("<II", 2**31, 2**31 - 1) + GOOD[-4:],
    "big_endian": _torch_zip(_one(_tensor((2, 4), (4, 1), 8)), _storage(EIGHT)).replace(b"little", b"bigbig"),
    "list": _torch_zip(b"\x80\x02](K\x01K\x02e."),
    "number": _torch_zip(b"\x80\x02K\x01."),
    "empty_dict": _torch_zip(b"\x80\x02}."),
    "names_are_numbers": _torch_zip(b"\x80\x02}K\x01" + _tensor((2, 4), (4, 1), 8) + b"s.", _storage(EIGHT)),
    "name_with_escapes": _torch_zip(
        _one(_tensor((2, 4), (4, 1), 8)).replace(b"X\x01\x00\x00\x00a", b"X\x05\x00\x00\x00\x1b[2J\n"), _storage(EIGHT)
    ),
    "name_of_5000": _torch_zip(
        _one(_tensor((2, 4), (4, 1), 8)).replace(b"X\x01\x00\x00\x00a", b"X\x88\x13\x00\x00" + b"a" * 5000), _storage(EIGHT)
    ),
    "itself": _torch_zip(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
    "empty": b"",
    "html": b"<!DOCTYPE html><html>404</html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "zeros": bytes(1000),
    "text": b"not weights\n",
    "zip_of_nothing": b"PK\x05\x06" + bytes(18),
}


# --- programs: TorchScript that runs code when it is loaded ---


def _torchscript(folder: Path) -> None:
    """Write a module whose `__setstate__` makes a file."""
    import torch

    from support.planted import Planted

    torch.jit.save(torch.jit.script(Planted()), folder / "model.pt")


def _script(data: bytes, *members: tuple[str, bytes]) -> Maker:
    code = ("archive/code/__torch__.py", b"class M(Module):\n  pass\n")
    return content("model.pt", _torch_zip(data, code, ("archive/constants.pkl", b"\x80\x02)."), *members))


MODULE = b"\x80\x02c__torch__\nM\n)\x81}(X\x01\x00\x00\x00a"
PROGRAMS: dict[str, Maker] = {
    "setstate_writes_a_file": _torchscript,
    "payload_in_data": _script(pickled(PAYLOADS["os_system"])),
    "payload_in_constants": content(
        "model.pt", _torch_zip(_one(b"N"), ("archive/constants.pkl", pickled(PAYLOADS["os_system"])))
    ),
    "attribute_of_text": _script(MODULE + b"X\x01\x00\x00\x00bub."),
    "attribute_is_itself": _script(b"\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub."),
    "shape_of_text": _script(
        MODULE + _tensor((2, 4), (4, 1), 8).replace(_number(2), b"X\x01\x00\x00\x002") + b"ub.", _storage(EIGHT)
    ),
    "size_negative": _script(MODULE + _tensor((-2, 4), (4, 1), 8) + b"ub.", _storage(EIGHT)),
    "stride_zero_tb": _script(MODULE + _tensor((2**40,), (0,), 1) + b"ub.", _storage(EIGHT)),
    "offset_huge": _script(MODULE + _tensor((2, 4), (4, 1), 8, offset=2**62) + b"ub.", _storage(EIGHT)),
    "storage_missing": _script(MODULE + _tensor((2, 4), (4, 1), 8) + b"ub."),
    "data_is_a_list": _script(b"\x80\x02]."),
    "data_is_cut": _script(MODULE),
    "stack_underflow": _script(b"\x80\x02tRub."),
    "unknown_opcode": _script(b"\x80\x02\xff."),
    "memo_unknown": _script(b"\x80\x02h\x07."),
    "deep_modules": _script(b"\x80\x02" + b"c__torch__\nM\n)\x81}(X\x01\x00\x00\x00a" * 20_000 + b"N" + b"ub" * 20_000 + b"."),
}


def _whole_zip(payload: bytes) -> bytes:
    return _torch_zip(pickled(payload, protocol=4))


RUNS = (command("show model.pth"), command("convert model.pth -o OUT/m.safetensors --set heads=2"))

ENTRIES = [
    *(Entry(f"pickle/{name}", content("model.pth", _whole_zip(payload)), RUNS[:1]) for name, payload in PAYLOADS.items()),
    Entry(
        "pickle/folder",
        content("model/pytorch_model.bin", _whole_zip(PAYLOADS["os_system"])),
        (
            command("convert model -o OUT/m"),
            command("export model --onnx -o OUT/m.onnx"),
            command("publish model org/name --dry-run OUT/r"),
        ),
    ),
    Entry(
        "pickle/as_safetensors",
        content("model.safetensors", pickled(PAYLOADS["os_system"])),
        (command("show model.safetensors"), command("predict model.safetensors BASE/image.png")),
    ),
    Entry("pickle/as_npz", content("model.npz", pickled(PAYLOADS["os_system"])), (command("show model.npz"),)),
    Entry(
        "pickle/as_onnx",
        content("model.onnx", pickled(PAYLOADS["os_system"])),
        (command("verify model.onnx --against BASE/tiny"),),
    ),
    Entry(
        "pickle/as_head",
        content("head.pth", _whole_zip(PAYLOADS["os_system"])),
        (command("show BASE/tiny --head head.pth", INPUT, names="tiny"),),
    ),
    Entry(
        "pickle/as_weights",
        content("w.pth", _whole_zip(PAYLOADS["stack_global"])),
        (command("export vit_ti16 --weights w.pth --onnx -o OUT/m.onnx"),),
    ),
    *(
        Entry(f"torch/{name}", content("model.pth", data), (command("show model.pth", REFUSED, INPUT),))
        for name, data in TORCH.items()
    ),
    *(
        Entry(
            f"torchscript/{name}",
            make,
            (command("show model.pt", 0, REFUSED), command("convert model.pt -o OUT/m.safetensors --set heads=2")),
        )
        for name, make in PROGRAMS.items()
    ),
]
