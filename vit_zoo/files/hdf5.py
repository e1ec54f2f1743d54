"""Reader of HDF5 files, the format of Keras weights: every dataset by its path.

Needs h5py, an optional dependency.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import MissingDependency, RefusedContent
from vit_zoo.files.stored import DTYPES, MAX_NAME, Stored, check_expansion, check_shape, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_ITEMS = 40_000  # groups and datasets; Keras has two of them for each tensor
MAX_DEPTH = 64
TYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64"}
FILTERS = (1, 2, 3, 32_000)  # deflate, shuffle, fletcher32 and h5py's lzf; libraries of others are loaded from a folder


def read_hdf5(path: Path) -> dict[str, Stored]:
    """Return the datasets of a file by path; their values are read lazily.

    Raises MissingDependency without h5py; RefusedContent for a damaged file, for links or data outside the file, for groups that
    contain themselves, and for data that would be far larger in memory than in the file.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependency("reading HDF5 files needs h5py", where=path, hint="pip install h5py") from None
    datasets: dict[str, Stored] = {}
    try:
        with h5py.File(path, "r") as file:
            for name, dataset in _datasets(file, "", set(), iter(range(MAX_ITEMS)), path):
                datasets[name] = _stored(name, dataset, path)
    except RefusedContent:
        raise
    except Exception as error:  # h5py passes on any error of the C library
        raise RefusedContent(f"cannot be read as HDF5: {error}", where=path) from None
    weights = [stored for stored in datasets.values() if stored.dtype in DTYPES]
    check_expansion(sum(stored.nbytes for stored in weights), path.stat().st_size, path)
    return datasets


def _datasets(group: Any, prefix: str, groups: set[int], budget: Iterator[int], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the datasets of a group with their paths. `groups` has the places in the file of those that were found before.

    A link can lead to a group that is in another place too: in itself, or at the end of a billion paths.
    """
    import h5py

    groups.add(h5py.h5o.get_info(group.id).addr)
    for name in group:
        full = f"{prefix}{name}"
        if full.count("/") > MAX_DEPTH or len(full) > MAX_NAME:
            raise RefusedContent("is nested too deeply", where=path)
        if next(budget, None) is None:
            raise RefusedContent(f"has more than {MAX_ITEMS:,} groups and datasets", where=path)
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise RefusedContent(f"{full!r} is a soft or external link", where=path)
        item = group[name]
        if isinstance(item, h5py.Group):
            if h5py.h5o.get_info(item.id).addr in groups:
                raise RefusedContent(f"{full!r} is linked in two places", where=path)
            yield from _datasets(item, f"{full}/", groups, budget, path)
        elif isinstance(item, h5py.Dataset):  # the other kind is the name of a type
            yield full, item


def _stored(name: str, dataset: Any, path: Path) -> Stored:
    """Return a dataset. Raises RefusedContent for one whose values are elsewhere, or not there at all."""
    if dataset.external or dataset.is_virtual:
        raise RefusedContent(f"{name!r} is stored in another file", where=path)
    if dataset.shape is None:  # it has a type, but no values
        return Stored("empty", (), partial(refuse_type, name, "empty", path))
    shape, kind = check_shape(name, dataset.shape, path), dataset.dtype.str
    if kind not in TYPES:
        return Stored(kind, shape, partial(refuse_type, name, kind, path))
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    if not set(filters) <= set(FILTERS):
        unknown = next(number for number in filters if number not in FILTERS)
        raise RefusedContent(f"{name!r} is compressed by filter {unknown}, which is not supported", where=path)
    stored = Stored(TYPES[kind], shape, partial(_array, path, name, shape, kind))
    if not filters and dataset.id.get_storage_size() < stored.nbytes:
        raise RefusedContent(f"{name!r} claims more values than the file contains", where=path)
    return stored


def _array(path: Path, name: str, shape: tuple[int, ...], kind: str) -> Array:
    import h5py
    import numpy as np

    values = np.empty(shape, kind)
    try:
        with h5py.File(path, "r") as file:
            if 0 not in shape:
                file[name].read_direct(values)
    except Exception as error:  # as above
        raise RefusedContent(f"{name!r} cannot be read: {error}", where=path) from None
    return values.astype(DTYPES[TYPES[kind]][1], copy=False)
