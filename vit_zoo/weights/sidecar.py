"""Sidecars: the config file that a library stores next to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import notice
from vit_zoo.files import read_json

if TYPE_CHECKING:
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.weights.dialect import Dialect


@dataclass(frozen=True)
class SidecarFormat:
    """How a library's config file is read.

    * `facts`: fields of the spec from the content of the file; the second argument names the file in errors.
    * `file`: its name, in the folder of the checkpoint.
    * `required_key`: the file is the library's only if this key holds a text.
    * `labels`, `preprocess`: the names of the classes, and how images are prepared; None where the file does not state it.
    * `preprocess_file`: the file that `preprocess` reads, where it is another one.
    * `preprocess_object`: a file and a key in it, whose object `preprocess` reads in place of that file where it is there.
    * `write_preprocess`: the content of `preprocess_file` for a converted model.
    * `interpolates`: whether the library runs such a model at any image size, with interpolated positions, without being asked.
    """

    facts: Callable[[Mapping[str, Any], object], dict[str, Any]]
    file: str = "config.json"
    required_key: str | None = None
    labels: Callable[[Mapping[str, Any]], tuple[str, ...] | None] = lambda config: None
    preprocess: Callable[[Mapping[str, Any]], Preprocess | None] = lambda config: None
    preprocess_file: str | None = None
    preprocess_object: tuple[str, str] | None = None
    write_preprocess: Callable[[Preprocess], dict[str, Any]] | None = None
    interpolates: Callable[[Mapping[str, Any]], bool] = lambda config: False


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar states: fields of the spec, the names of the classes, and how images are prepared.

    `interpolates`: the library runs the model at the size of the prepared images, whatever its own is.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    interpolates: bool = False

    @classmethod
    def of(cls, checkpoint: Path, dialect: Dialect) -> Sidecar:
        """Read the sidecar in the folder of a checkpoint; it is empty where the dialect has none or the file is not there."""
        kind = dialect.sidecar
        path = checkpoint if kind is None else checkpoint.with_name(kind.file)
        if kind is None or path == checkpoint or not path.is_file():
            return cls()
        config = read_json(path)
        if kind.required_key is not None and not isinstance(config.get(kind.required_key), str):
            return cls()
        preprocess = _preprocess(kind, path, config)
        return cls(kind.facts(config, path), kind.labels(config), preprocess, kind.interpolates(config))


def _preprocess(kind: SidecarFormat, path: Path, config: Mapping[str, Any]) -> Preprocess | None:
    """How images are prepared; None where no file states it or, with a notice, where what it states is not supported."""
    if kind.preprocess_file is None:
        return kind.preprocess(config)
    name, stated = kind.preprocess_file, None
    if kind.preprocess_object is not None:
        file, key = kind.preprocess_object
        stated = read_json(path.with_name(file)).get(key) if path.with_name(file).is_file() else None
        name = file if isinstance(stated, Mapping) else name
    if not isinstance(stated, Mapping) and path.with_name(name).is_file():
        stated = read_json(path.with_name(name))
    if not isinstance(stated, Mapping):
        return None
    preprocess = kind.preprocess(stated)
    if preprocess is None:
        notice(f"{name}: this preparation of images is not supported, so the model has no preprocessing")
    return preprocess
