"""Sidecars: the config file that a library stores next to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent, VitzooError, notice, shown
from vit_zoo.files import read_json
from vit_zoo.model.config import PREPROCESS, PROBLEM_TYPES

if TYPE_CHECKING:
    from vit_zoo.model.config import ProblemType
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
    * `preprocess_object`: a file and a key in it, whose object `preprocess` reads in place of that file where it is there.
    * `write_preprocess`: the files about image preparation of a converted model, by their names.
    * `interpolates`: whether the library runs such a model at any image size, with interpolated positions, without being asked.
    """

    facts: Callable[[Mapping[str, Any], object], dict[str, Any]]
    file: str = "config.json"
    required_key: str | None = None
    labels: Callable[[Mapping[str, Any]], tuple[str, ...] | None] = lambda config: None
    preprocess: Callable[[Mapping[str, Any]], Preprocess | None] = lambda config: None
    preprocess_file: str | None = None
    preprocess_object: tuple[str, str] | None = None
    write_preprocess: Callable[[Preprocess], dict[str, dict[str, Any]]] | None = None
    interpolates: Callable[[Mapping[str, Any]], bool] = lambda config: False


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar states: fields of the spec, the names of the classes, what they are, and how images are prepared.

    `interpolates`: the library runs the model at the size of the prepared images, whatever its own is.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    problem_type: ProblemType | None = None
    interpolates: bool = False

    @classmethod
    def of(cls, checkpoint: Path, dialect: Dialect) -> Sidecar:
        """Read the sidecar in the folder of a checkpoint; it is empty where the dialect has none or the file is not there.

        Raises RefusedContent for a config of another model, and for values of other types than the library writes.
        """
        kind = dialect.sidecar
        path = checkpoint if kind is None else checkpoint.with_name(kind.file)
        if kind is None or path == checkpoint or not path.is_file():
            return cls()
        config = read_json(path)
        if kind.required_key is not None:
            stated = config.get(kind.required_key)
            if stated is None:
                return cls()
            if not isinstance(stated, str):
                raise RefusedContent(f"{kind.required_key} = {shown(stated)}: expected a text", where=path)
        facts = kind.facts(config, path)
        preprocess = _preprocess(kind, path, config)
        return cls(facts, kind.labels(config), preprocess, problem_type_of(config, path), kind.interpolates(config))

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
        stated = {"problem_type": getattr(getattr(module, "config", None), "problem_type", None)}
        problem_type = problem_type_of(stated, where)
        if kind is None:
            return cls(facts, problem_type=problem_type)
        preprocess = kind.preprocess(config) if kind.preprocess_file is None else None
        return cls(facts, kind.labels(config), preprocess, problem_type)


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
        cause = "this preparation of images is not supported, so the model has no preprocessing"
        notice(f"{name}: {cause}; state one that is close: {PREPROCESS}", [PREPROCESS])
    return preprocess


def problem_type_of(config: Mapping[str, Any], where: object) -> ProblemType | None:
    """What the outputs stand for, as transformers' configs state it, those that it writes for timm's models included.

    `function_to_apply` is not read: transformers' pipeline asks for it only after every rule that gives an answer.
    """
    stated = config.get("problem_type")
    if stated is None:
        return None
    if stated not in PROBLEM_TYPES:
        raise RefusedContent(f"unknown problem_type {shown(stated)}; expected {', '.join(PROBLEM_TYPES)}", where=where)
    return stated  # type: ignore[no-any-return]
