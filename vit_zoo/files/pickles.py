"""Reader and writer of PyTorch checkpoints; reading runs no code from the file.

The reader is torch's restricted unpickler, with checks for what it accepts: compressed members that expand to gigabytes,
views that claim terabytes of a small storage, and flipped bits, because torch ignores the CRC. Objects that training scripts
store beside the weights are not made: a placeholder without behaviour takes the place of each class that is known to be data.
"""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vit_zoo.errors import RefusedContent
from vit_zoo.files.atomic import Staged
from vit_zoo.files.stored import MAX_NAME, Stored, check_shape, refuse_type

if TYPE_CHECKING:
    import torch

    from vit_zoo.files.stored import Array

# Limits of the dictionaries in a file: their depth, their items, and the tensors in them. Real files have a few thousand.
MAX_DEPTH, MAX_ITEMS, MAX_TENSORS = 16, 2_000_000, 20_000
MAX_MEMBERS = 50_000  # of an archive: a member for each tensor, and those of an optimiser
SAVE_HINT = "in the environment that trained it, write the weights alone: torch.save(model.state_dict(), 'weights.pth')"


class Placeholder:
    """Takes the place of an object beside the weights, such as a number of NumPy or a path, whatever its state."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PlainDict:
    """Takes the place of a class of dictionaries: a new one is an empty `OrderedDict`, which torch's unpickler fills."""

    def __new__(cls, *args: object, **kwargs: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class PlainList:
    """Takes the place of a class of lists: a new one is an empty `list`, which torch's unpickler fills."""

    def __new__(cls, *args: object, **kwargs: object) -> list[Any]:  # type: ignore[misc]
        return []


NUMPY_TYPES = (
    "bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "str_", "bytes_", "datetime64", "timedelta64", "intc", "longlong", "ulonglong", "longdouble",
)  # fmt: skip
NUMPY_DTYPES = (
    "Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float16", "Float32", "Float64",
    "Complex64", "Complex128", "Str", "Bytes", "DateTime64", "TimeDelta64", "LongLong", "ULongLong", "LongDouble",
)  # fmt: skip
PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
# Names of classes and functions that a file may refer to. None of them is called: each stands for a placeholder.
DATA: Mapping[type, tuple[str, ...]] = {
    Placeholder: (
        "numpy.dtype", "numpy.ndarray",
        *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in (
            "multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer",
        )),
        *(f"numpy.{name}" for name in NUMPY_TYPES), *(f"numpy.dtypes.{name}DType" for name in NUMPY_DTYPES),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
        "argparse.Namespace", "types.SimpleNamespace",
        *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")), "zoneinfo.ZoneInfo",
        "uuid.UUID", "uuid.SafeUUID", "decimal.Decimal", "fractions.Fraction",
        *(f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes", "list", "tuple", "dict", "frozenset",
                                          "object", "range", "slice")),
        "typing.Any", "torch.torch_version.TorchVersion", "torchvision.transforms.functional.InterpolationMode",
        "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode",
        "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "ml_collections.config_dict.config_dict.ConfigDict",
    ),
    PlainDict: (
        "collections.defaultdict", "easydict.EasyDict", "yacs.config.CfgNode", "munch.Munch", "addict.addict.Dict",
        "pytorch_lightning.utilities.parsing.AttributeDict", "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
        "mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict",
    ),
    PlainList: ("collections.deque",),
}  # fmt: skip


def read_torch(path: Path, *, zipped: bool = True) -> dict[str, Stored]:
    """Return the tensors of a file that `torch.save` wrote. Raises RefusedContent for a file without a state dict.

    Names of tensors in nested dictionaries are joined with dots; the states of optimizers are left out. `zipped=False` reads
    the format of torch before 1.6, which is a sequence of pickles.
    """
    if zipped:
        check_zip(path)  # before torch, which takes seconds to import
    import torch

    data: list[Any] = [(placeholder, name) for placeholder, names in DATA.items() for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about content that is refused here
        try:
            with torch.serialization.safe_globals(data):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # a hostile file can make the unpickler raise anything
            raise _refusal(error, path) from None
    tensors: dict[str, Stored] = {}
    budget = iter(range(MAX_ITEMS))
    for name, tensor in _nested(content, "", 0, budget, _Lists(), path):
        if name in tensors or len(tensors) == MAX_TENSORS:
            cause = f"contains {name!r} twice" if name in tensors else f"contains more than {MAX_TENSORS:,} tensors"
            raise RefusedContent(cause, where=path)
        tensors[name] = stored(name, tensor, where=path)
    if not tensors:
        kind = "an object" if isinstance(content, Placeholder) else type(content).__name__
        hint = SAVE_HINT if isinstance(content, Placeholder) else None
        raise RefusedContent(f"expected a state dict, got {kind} without tensors", where=path, hint=hint)
    return tensors


def _nested(
    content: Any, prefix: str, depth: int, budget: Iterator[int], holds_dictionaries: _Lists, where: object
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in nested dictionaries, and in dictionaries in lists, with their names.

    The same object may be in many places, and a pickle can set attributes on it: only methods of its type are called.
    """
    import torch

    if depth > MAX_DEPTH or len(prefix) > MAX_NAME:
        raise RefusedContent("is nested too deeply", where=where)
    if isinstance(content, dict):
        if dict.__contains__(content, "state") and dict.__contains__(content, "param_groups"):  # an optimizer's
            return
        items: Iterable[tuple[Any, Any]] = dict.items(content)
    else:
        items = enumerate(content) if isinstance(content, list | tuple) else ()
    for key, value in items:
        if next(budget, None) is None:
            raise RefusedContent(f"contains more than {MAX_ITEMS:,} items", where=where)
        if not isinstance(key, str | int):
            continue
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            if len(key) > MAX_NAME:
                raise RefusedContent(f"contains a tensor with a name of {len(key):,} characters", where=where)
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) or (isinstance(value, list | tuple) and holds_dictionaries(value)):
            yield from _nested(value, f"{prefix}{key}.", depth + 1, budget, holds_dictionaries, where)


class _Lists:
    """Whether a list holds dictionaries, looked at once for each: a file may have a long list in a million places."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __call__(self, items: Sequence[Any]) -> bool:
        if id(items) not in self._known:
            self._known[id(items)] = any(isinstance(item, dict) for item in items)
        return self._known[id(items)]


def tensors_of(state: Any, *, where: object) -> dict[str, Stored]:
    """Return the tensors of a state dict in memory as `Stored`. Raises RefusedContent if a value is not a tensor."""
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(k, str) for k in state):
        raise RefusedContent(f"expected a state dict, got {type(state).__name__}", where=where)
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        kind = type(state[others[0]]).__name__
        raise RefusedContent(f"{others[0]!r}: expected a tensor, got {kind}", where=where)
    return {name: stored(name, tensor, where=where) for name, tensor in state.items()}


def stored(name: str, tensor: torch.Tensor, *, where: object) -> Stored:
    """Return a torch tensor as `Stored`. Raises RefusedContent if it is sparse, has no values or is larger than its storage."""
    import torch

    types = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    tensor = torch.Tensor.detach(tensor)  # without attributes, which a pickle can set: `numel` may be a number
    if tensor.layout is not torch.strided:
        raise RefusedContent(f"{name!r} is not a dense tensor", where=where)
    if tensor.dtype not in types:
        kind = str(tensor.dtype).removeprefix("torch.")
        return Stored(kind, tuple(tensor.shape), partial(refuse_type, name, kind, where))
    if tensor.is_meta:
        raise RefusedContent(f"{name!r} has no values", where=where)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise RefusedContent(f"{name!r} claims more values than the file contains", where=where)
    return Stored(types[tensor.dtype], check_shape(name, tensor.shape, where), partial(_array, tensor))


def _array(tensor: torch.Tensor) -> Array:
    import torch

    tensor = tensor.detach().cpu()
    raw = tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor
    return raw.numpy()


def check_zip(path: Path, *, program: bool = False) -> None:
    """Raise RefusedContent for a zip archive with compressed or damaged members.

    With `program`, only the data members of a TorchScript archive are checked, because its code is never read.
    """
    damaged = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not program or "/data/" in m.filename or m.filename.endswith("/data.pkl")]
            compressed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if len(members) > MAX_MEMBERS:
                raise RefusedContent(f"has {len(members):,} members; the limit is {MAX_MEMBERS:,}", where=path)
            if compressed or sum(m.file_size for m in members) > path.stat().st_size:
                raise RefusedContent("contains compressed members, which torch never writes", where=path)
            if any(m.CRC for m in members):  # all are 0 if torch was set not to compute them
                damaged = next((m.filename for m in members if not _has_its_checksum(archive, m)), None)
    except RefusedContent:
        raise
    except Exception as error:  # zipfile raises undocumented errors: RuntimeError, struct.error, ...
        raise RefusedContent(f"not a complete zip archive: {error}", where=path) from None
    if damaged is not None:
        raise RefusedContent(f"is damaged: the checksum of {damaged!r} is wrong", where=path)


def _has_its_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Return whether a member has the CRC of the zip directory; zipfile compares them at the end of the member."""
    try:
        with archive.open(member) as file:
            while file.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _refusal(error: Exception, path: Path) -> RefusedContent:
    """Return the error for a file that torch refused: the code that it refers to, or else the type of the error."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    names: set[str] = set()
    with contextlib.suppress(Exception):  # it reads the same hostile file; if it fails, the first error is reported
        names = set(get_unsafe_globals_in_checkpoint(path)).difference(*DATA.values())
    if names:
        cause = f"would run code when loaded: it refers to {', '.join(sorted(names)[:3])}"
        return RefusedContent(cause, where=path, hint=SAVE_HINT)
    return RefusedContent(f"cannot be read as a torch checkpoint ({type(error).__name__})", where=path)


def write_torch(staged: Staged, tensors: Mapping[str, Stored], wrapper: str | None = None) -> None:
    """Write a state dict with `torch.save`, under the key `wrapper` if one is given."""
    import torch

    state = {}
    for name, stored in tensors.items():
        tensor = torch.from_numpy(stored.copied())
        state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
    staged.write(lambda file: torch.save(state if wrapper is None else {wrapper: state}, file))
