"""Reader of HDF5 files, the format of Keras weights: every dataset by its path.

Needs h5py, an optional dependency.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import MissingDependency, RefusedContent
from vit_zoo.files.stored import DTYPES, Stored, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_DATASETS = 20_000
TYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64"}


def read_hdf5(path: Path) -> dict[str, Stored]:
    """Return the datasets of a file by path; their values are read lazily.

    Raises MissingDependency without h5py, RefusedContent for a damaged file and for links or data outside the file.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependency("reading HDF5 files needs h5py", where=path, hint="pip install h5py") from None
    datasets: dict[str, Stored] = {}
    try:
        with h5py.File(path, "r") as file:
            _collect(file, "", datasets, path)
    except RefusedContent:
        raise
    except Exception as error:  # h5py passes on any error of the C library
        raise RefusedContent(f"cannot be read as HDF5: {error}", where=path) from None
    return datasets


def _collect(group: Any, prefix: str, datasets: dict[str, Stored], path: Path) -> None:
    import h5py

    for name in group:
        full = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise RefusedContent(f"{full!r} is a soft or external link", where=path)
        item = group[name]
        if isinstance(item, h5py.Group):
            _collect(item, f"{full}/", datasets, path)
            continue
        if item.external or item.is_virtual:
            raise RefusedContent(f"{full!r} is stored in another file", where=path)
        if len(datasets) >= MAX_DATASETS:
            raise RefusedContent(f"has more than {MAX_DATASETS:,} datasets", where=path)
        shape, kind = tuple(item.shape or ()), item.dtype.str
        if kind in TYPES:
            datasets[full] = Stored(TYPES[kind], shape, partial(_array, path, full))
        else:
            datasets[full] = Stored(kind, shape, partial(refuse_type, full, kind, path))


def _array(path: Path, name: str) -> Array:
    import h5py
    import numpy as np

    with h5py.File(path, "r") as file:
        dataset = file[name]
        return np.ascontiguousarray(dataset[()]).astype(DTYPES[TYPES[dataset.dtype.str]][1])
