"""Sidecars: the config file that a library stores next to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent, VitzooError
from vit_zoo.files import read_json

if TYPE_CHECKING:
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.weights.dialect import Dialect

# what to do with a module of another class
SAVE_STATE = "read its tensors alone: torch.save(module.state_dict(), 'weights.pt') and load that file"


@dataclass(frozen=True)
class SidecarFormat:
    """How a library's config file is read.

    * `facts`: fields of the spec from the content of the file; the second argument names the file in errors.
    * `file`: its name, in the folder of the checkpoint.
    * `required_key`: the file is the library's only if this key holds a text.
    * `labels`, `preprocess`: the names of the classes, and how images are prepared; None where the file does not state it.
    * `preprocess_file`: the file that `preprocess` reads, where it is another one.
    * `write_preprocess`: the content of `preprocess_file` for a converted model.
    * `interpolates`: whether the library runs such a model at any image size, with interpolated positions, without being asked.
    """

    facts: Callable[[Mapping[str, Any], object], dict[str, Any]]
    file: str = "config.json"
    required_key: str | None = None
    labels: Callable[[Mapping[str, Any]], tuple[str, ...] | None] = lambda config: None
    preprocess: Callable[[Mapping[str, Any]], Preprocess | None] = lambda config: None
    preprocess_file: str | None = None
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
        preprocess = None
        if kind.preprocess_file is None:
            preprocess = kind.preprocess(config)
        elif (other := path.with_name(kind.preprocess_file)).is_file():
            preprocess = kind.preprocess(read_json(other))
        return cls(kind.facts(config, path), kind.labels(config), preprocess, kind.interpolates(config))

    @classmethod
    def of_module(cls, module: Any, dialect: Dialect, *, where: object) -> Sidecar:
        """Read from a live module what a sidecar states. Raises RefusedContent for an unknown class."""
        kind = dialect.sidecar
        try:
            facts = {} if dialect.facts_from_module is None else dialect.facts_from_module(module)
            config = dialect.config_from_module(module)
        except VitzooError:
            raise
        except (AttributeError, TypeError, LookupError, ValueError) as error:  # an attribute that the library's classes have
            cause = f"has the tensors of dialect {dialect.name}, but is not one of its classes that are known: {error}"
            raise RefusedContent(cause, where=where, hint=SAVE_STATE) from None
        if kind is None:
            return cls(facts)
        return cls(facts, kind.labels(config), kind.preprocess(config) if kind.preprocess_file is None else None)
