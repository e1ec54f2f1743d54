"""onnxruntime sessions, and the program of the child process that runs one for a file that is not trusted.

`child.py` starts this file as a script that can import the standard library, numpy and onnxruntime. So it imports nothing of
this package, and never torch.

A message is a number of 4 bytes, little-endian; a JSON object of that many bytes; and the bytes of the arrays that the object
describes under `arrays`, each by its type and shape.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import os
import re
import struct
import sys
import threading
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

LENGTH = struct.Struct("<I")
NUMBERS = "fiub"  # kinds of NumPy types that outputs may have
NO_MEMORY = re.compile(r"bad_alloc|bad allocation|Failed to allocate|BFCArena|can't allocate")
KINDS = {list: "a sequence", dict: "a map", type(None): "an optional without a value"}


class Value(NamedTuple):
    """An input or output as onnxruntime describes it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class SessionError(Exception):
    """A failure of onnxruntime.

    `kind` is `provider` (the text lists those there are), `memory`, `output` (one that is no array of numbers), or `failed`.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


class TooLarge(ValueError):
    """A message with arrays of more bytes than are accepted."""


class Session:
    """An onnxruntime session of one file."""

    def __init__(
        self,
        path: str | Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        optimised: bool = True,
        more: bytes = b"",
        profile: str | None = None,
    ) -> None:
        """`more` is appended to the file's bytes; `profile` is the prefix of the path of the profile that onnxruntime writes."""
        import onnxruntime as ort

        known = ort.get_available_providers()
        for provider in providers or ():
            if provider not in known:
                raise SessionError("provider", f"unknown provider '{provider}'; choose from {', '.join(known)}")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # the threads of an idle session would keep spinning for a while and slow down whatever runs next
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry(
                "session.disable_prepacking", "1"
            )  # other kernels, and 140 MiB less memory for ViT-B/16
        if more:
            # of the link, if the file is one, as in the Hub's cache; pathlib takes a tenth of the child's start
            folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            model = path if not more else _with(path, more)
            self.session = ort.InferenceSession(model, options, providers=list(providers or ["CPUExecutionProvider"]))
            self.inputs = [Value(value.name, value.type, tuple(value.shape)) for value in self.session.get_inputs()]
            self.outputs = [Value(value.name, value.type, tuple(value.shape)) for value in self.session.get_outputs()]
        except Exception as error:  # onnxruntime has an exception type for each kind of failure
            raise _failure(error) from None
        unused = [provider for provider in providers or () if provider not in self.session.get_providers()]
        if unused:  # onnxruntime goes on with the CPU
            raise SessionError("provider", f"onnxruntime cannot use the provider '{unused[0]}' on this machine")

    def run(self, name: str, x: Array, more: Mapping[str, Array] | None = None) -> list[Array]:
        """Run the graph on its input of this name, and `more` inputs, and return every output in order."""
        import numpy as np

        try:
            values = self.session.run(None, {name: x, **(more or {})})
        except Exception as error:  # as above
            raise _failure(error) from None
        for output, value in zip(self.outputs, values, strict=True):
            kind = None if isinstance(value, np.ndarray) and value.dtype.kind in NUMBERS else _kind(value)
            if kind is not None:
                raise SessionError("output", f"output {output.name!r} is {kind}, not an array of numbers")
        return values  # type: ignore[no-any-return]

    def profile(self) -> str:
        """End the profile and return its text."""
        with open(self.session.end_profiling(), encoding="utf-8") as file:  # noqa: PTH123 - as above
            return file.read()


def _with(path: str | Path, more: bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return b"".join((file.read(), more))


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return KINDS.get(type(value), f"of type {type(value).__name__}") if dtype is None else f"of type {dtype}"


def _failure(error: Exception) -> SessionError:
    text = str(error)
    memory = isinstance(error, MemoryError) or NO_MEMORY.search(text) is not None
    return SessionError("memory" if memory else "failed", _last_sentence(error))


def _last_sentence(error: Exception) -> str:
    """Return the reason in an error of onnxruntime without places in its source, and the operator that it concerns."""
    lines = str(error).strip().splitlines()
    text = re.sub(r"/\S+\.(h|cc):\d+ .*?\) |\b\w+\.(h|cc):\d+ \w+ ", "", lines[-1] if lines else type(error).__name__)
    node = re.search(r"running (\w+) node\. Name:'([^']*)'", str(error))
    return re.split(r" : |failed:|, Error ", text)[-1][:300] + (f", at {node[1]} {node[2]!r}" if node else "")


def send(file: IO[bytes], message: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write a message."""
    described = [[x.dtype.str, list(x.shape)] for x in arrays]
    header = json.dumps({**message, "arrays": described}).encode()
    file.write(LENGTH.pack(len(header)) + header)
    for x in arrays:
        if x.size:
            file.write(x.ravel().view("u1").data)  # in C order, copied only if it does not lie so in memory
    file.flush()


def receive_exactly(file: IO[bytes], buffer: memoryview) -> None:
    """Fill a buffer. Raises EOFError at the end of the file."""
    at = 0
    while at < len(buffer):
        count = file.readinto(buffer[at:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        at += count


def receive_header(file: IO[bytes], limit: int) -> dict[str, Any]:
    """Read the JSON object of a message. Raises ValueError for anything else, or for more than `limit` bytes."""
    length = bytearray(LENGTH.size)
    receive_exactly(file, memoryview(length))
    size = LENGTH.unpack(length)[0]
    if size > limit:
        raise ValueError
    text = bytearray(size)
    receive_exactly(file, memoryview(text))
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError  # noqa: TRY004 - what was read is no valid message
    return message


def receive_arrays(file: IO[bytes], described: Any, limit: int) -> list[Array]:
    """Read the arrays of a message. Raises ValueError if it does not describe them so, and TooLarge for more bytes."""
    import numpy as np

    if not isinstance(described, list):
        raise ValueError  # noqa: TRY004 - as above
    arrays, left = [], limit
    for entry in described:
        code, shape = entry
        if not isinstance(code, str) or not re.fullmatch(r"[<|][fiub]\d{1,2}", code) or not isinstance(shape, list):
            raise ValueError
        if len(shape) > 32 or not all(type(length) is int and 0 <= length <= limit for length in shape):
            raise ValueError
        dtype = np.dtype(code)
        left -= math.prod(shape) * dtype.itemsize
        if left < 0:
            raise TooLarge
        x = np.empty(shape, dtype)
        if x.size:
            receive_exactly(file, x.reshape(-1).view("u1").data)
        arrays.append(x)
    return arrays


def _limit(memory: int | None, seconds: float) -> None:
    """Limit this process's memory in bytes, and the CPU time that it takes from now on.

    The parent measures wall-clock time. The limit of CPU time ends a child whose parent was killed.
    """
    if sys.platform == "win32":
        return
    import resource

    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    wanted = {resource.RLIMIT_CPU: math.ceil(used + seconds * (os.cpu_count() or 1)) + 1}
    if memory is not None:
        wanted[resource.RLIMIT_DATA] = memory  # not RLIMIT_AS: onnxruntime reserves more than it uses
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _confine(*, writes: bool, dies_with: int) -> None:
    """Let this process write no files and no core dump, and end when the process `dies_with` ends, where that is possible."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not writes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if dies_with and sys.platform == "linux":
        import ctypes
        import signal

        parent_death_signal = 1
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != dies_with:  # it ended before this call
            os._exit(1)


def return_memory() -> None:
    """Return the memory of a closed session: glibc otherwise keeps it."""
    import ctypes

    trim = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _read_messages(file: IO[bytes], messages: SimpleQueue[tuple[dict[str, Any], list[Array]]]) -> None:
    """Read messages until the parent closes the pipe, or dies; then end this process, whatever it is doing."""
    try:
        while True:
            message = receive_header(file, 2**32)
            messages.put((message, receive_arrays(file, message["arrays"], 2**62)))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:  # a thread that ends would leave the process waiting forever
        os._exit(1)


def _answer(session: Session | None, message: dict[str, Any], arrays: list[Array]) -> tuple[Session, dict[str, Any], list[Array]]:
    """Do what a message asks for. Return the open session, and the answer."""
    if message["do"] == "open":
        if message["providers"]:
            import onnxruntime as ort

            if hasattr(ort, "preload_dlls"):  # libraries that torch would have loaded in the parent
                ort.preload_dlls()
        opened = Session(
            message["path"], providers=message["providers"], threads=message["threads"], optimised=message["optimised"],
            more=base64.b64decode(message["more"]), profile=message["profile"],
        )  # fmt: skip
        return opened, {"inputs": opened.inputs, "outputs": opened.outputs}, []
    if session is None:
        raise SessionError("failed", "no file is open")
    if message["do"] == "profile":
        return session, {"profile": session.profile()}, []
    return session, {}, session.run(message["input"], arrays[0], dict(zip(message["more"], arrays[1:], strict=True)))


def serve(
    answer: Callable[[Any, dict[str, Any], list[Array]], tuple[Any, dict[str, Any], list[Array]]],
    modules: Sequence[str],
    *,
    writes: bool,
    dies_with: int,
) -> None:
    """Answer messages until the parent ends.

    * `answer`: does what a message asks for, with what the last call returned first, which is None in the beginning.
    * `modules`: those to import before the first message.
    * `writes`: whether this process may write files; `dies_with`: the process that it dies with.
    """
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # onnxruntime prints to stdout
        os.dup2(null, descriptor)
    _confine(writes=writes, dies_with=dies_with)
    try:
        for name in modules:  # here, since the thread below needs NumPy
            importlib.import_module(name)
    except Exception as error:  # a broken installation
        send(outgoing, {"error": "import", "text": str(error)})
        return
    messages: SimpleQueue[tuple[dict[str, Any], list[Array]]] = SimpleQueue()
    threading.Thread(target=_read_messages, args=(incoming, messages), daemon=True).start()
    kept: Any = None
    while True:
        message, arrays = messages.get()
        if message["do"] == "open" and kept is not None:
            kept = None
            return_memory()
        try:
            _limit(message["memory"], message["seconds"])
            kept, reply, values = answer(kept, message, arrays)
        except SessionError as error:
            reply, values = {"error": error.kind, "text": error.text}, []
        except MemoryError:
            reply, values = {"error": "memory", "text": "not enough memory"}, []
        send(outgoing, reply, values)
        del arrays, values


def main() -> None:
    """Run the child process. Its argument: the folders to import from, whether it writes files, and the process it dies with."""
    folders, writes, dies_with = json.loads(sys.argv[1])
    sys.path += folders
    serve(_answer, ("numpy", "onnxruntime"), writes=writes, dies_with=dies_with)


if __name__ == "__main__":
    main()
