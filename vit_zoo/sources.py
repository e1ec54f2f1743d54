"""What a user names when a command wants a model: a registry name, a config, a folder, a checkpoint, a live module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from vit_zoo.configs import config_of
from vit_zoo.errors import HubError, InputError, RefusedContent
from vit_zoo.files import SafetensorsFile, Stored, read_json, sniff
from vit_zoo.files.checkpoints import CHECKPOINTS, checkpoint_in, read_checkpoint
from vit_zoo.hub.fetching import PREFIX, Address, fetch
from vit_zoo.model_config import ModelConfig
from vit_zoo.registry import get_config
from vit_zoo.resolving import find, is_alias, is_name, tags_of
from vit_zoo.tags import Tag
from vit_zoo.vit_spec import ViTSpec
from vit_zoo.zoo_files import read_variant
from vit_zoo.zoo_folders import variants

if TYPE_CHECKING:
    from torch import nn

ModelLike = Union[str, "os.PathLike[str]", "nn.Module"]
# how an error names what a checkpoint is not
KINDS = {
    "onnx": "an exported ONNX file",
    "pt2": "an exported program",
    "pickle": "a bare pickle, which runs code when loaded",
    "empty": "empty",
    "unknown": "of no known kind",
    "image": "an image",
    "HTML page": "an HTML page",
}
SUFFIXES = (".toml", ".json", ".safetensors", ".pt", ".pth", ".bin", ".npz", ".h5", ".onnx", ".pt2")


@dataclass(frozen=True)
class Source:
    """A model on paper: its config and its tensors under our names, not read yet; no tensors: an architecture."""

    config: ModelConfig
    tensors: Mapping[str, Stored] | None
    path: Path | None = None
    dialect: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)  # of each field of the spec
    digest: str | None = None  # the content hash that the file states
    unwanted: tuple[str, ...] = ()  # tensors of the file that are known and no part of the model
    cached: bool = False  # the file lies in the Hub's cache, which is not ours to write to


def find_source(
    model: ModelLike, *, weights: str | os.PathLike[str] | None = None, offline: bool | None = None, **facts: Any
) -> Source:
    """Resolve what the user named. `facts` are fields of the spec that a checkpoint cannot tell, such as heads.

    A name of the registry is the architecture, whatever lies in the current folder; a name with a tag, and `hf-hub:`, are
    weights of the Hub, of its cache alone where `offline`. Raises InputError for what does not exist, RefusedContent for
    tensors that do not fit, HubError for weights that cannot be had.
    """
    source = _given(model, facts, offline, with_weights=weights is not None)
    return source if weights is None else _with_weights(source, weights, facts, offline)


def find_architecture(name: str | os.PathLike[str], **facts: Any) -> ModelConfig:
    """What a name or a config file says of a model without weights. Raises InputError for what has weights."""
    text = str(name)
    source = None if text.startswith(PREFIX) else _given(name, facts, None, with_weights=True)
    if source is None or source.tensors is not None or source.config.source is not None:
        raise InputError("has weights already; a name or a config is wanted", where=text)
    return source.config


def published(name: str, *, offline: bool | None = None, **facts: Any) -> Source | None:
    """The weights of a registry's or another library's name that are its default tag's, if there are some on the Hub."""
    if os.path.lexists(name) and not is_name(name):
        return None
    named = find(name)
    tag = named.tag or next((tag for tag in tags_of(named.variant.name).values() if tag.is_on_hub), None)
    return None if tag is None else _of_tag(tag, facts, offline)


def _with_weights(source: Source, weights: str | os.PathLike[str], facts: Mapping[str, Any], offline: bool | None) -> Source:
    """An architecture with weights that are of it."""
    found = find_source(weights, offline=offline, **{**source.config.spec.model_dump(), **facts})
    if found.tensors is None:
        found = shipped(str(weights), found.config.spec) or found
    if found.tensors is None:
        raise InputError("has no weights", where=weights)
    if found.config.spec != source.config.spec:
        wrong = [
            f for f in type(found.config.spec).model_fields if getattr(found.config.spec, f) != getattr(source.config.spec, f)
        ]
        raise RefusedContent(f"its weights are of another model: {wrong[0]} differs", where=weights)
    told = {name: getattr(found.config, name) for name in ("source", "random_seed", "resize")}
    config = source.config.replace(**told, licence=found.config.licence or source.config.licence)
    return replace(found, config=config, unwanted=())


def _given(model: ModelLike, facts: Mapping[str, Any], offline: bool | None, *, with_weights: bool) -> Source:
    if isinstance(model, str | os.PathLike):
        return _named(str(model), facts, offline, with_weights=with_weights)
    return _of_module(model, facts)


def shipped(name: str, spec: ViTSpec) -> Source | None:
    """The weights that come with a name of the registry, if some do and they are for this very spec."""
    variant = variants().get(name)
    if variant is None or variant.weights is None:
        return None
    found = _of_folder(variant.weights, {})
    return found if found.config.spec == spec else None


def _named(name: str, facts: Mapping[str, Any], offline: bool | None, *, with_weights: bool) -> Source:
    """A name of ours, else a path that exists, else another library's name or published weights.

    Where others bring the weights, published ones stay where they are.
    """
    if not name:
        raise InputError("an empty name")
    path = Path(name)
    if name.startswith(PREFIX):
        return _of_hub(name, facts, offline)
    if is_name(name):
        return Source(get_config(name, **facts), None)
    if path.is_dir():
        return _of_folder(path, facts)
    if path.exists():
        return _of_file(path, facts)
    if path.suffix in SUFFIXES or ("/" in name and not is_alias(name)):
        raise InputError("no such file or folder", where=name)
    tag = find(name).tag
    return Source(get_config(name, **facts), None) if tag is None or with_weights else _of_tag(tag, facts, offline)


def _of_hub(name: str, facts: Mapping[str, Any], offline: bool | None) -> Source:
    """A repository of ours, timm's or transformers'. What it says of its licence goes along."""
    from vit_zoo.hub.cards import terms_of

    found = fetch(Address.parse(name), offline=offline)
    source = _of_folder(found.folder, facts)
    config, terms = source.config, terms_of(found.folder)
    told = {"source": _chained(str(found.address), source), "licence": config.licence or terms.licence}
    told["licence_link"] = config.licence_link or terms.licence_link
    if source.dialect != "vitzoo":
        told["name"] = found.address.repo.partition("/")[2].lstrip("_.-")[:96] or "model"
    return replace(source, config=config.replace(**told), cached=True)


def _chained(address: str, source: Source) -> str:
    """Where weights come from: the repository, and what that says of it."""
    if source.dialect != "vitzoo":
        return f"{address} ({source.dialect})"
    said = source.config.source
    return address if said is None or said.startswith(address) else f"{address}, from {said}"


def _of_tag(tag: Tag, facts: Mapping[str, Any], offline: bool | None) -> Source:
    """Published weights of a name, as the file that its row names."""
    config = get_config(tag.full_name, **facts)
    if not tag.is_on_hub:
        hint = f"download it, and name the file: --weights FILE of `vitzoo export {tag.full_name}`"
        raise HubError(f"the weights '{tag.tag}' of '{tag.name}' are at {tag.address}, licence {tag.licence}", hint=hint)
    revision = None if tag.revision == "unpinned" else tag.revision
    found = fetch(Address(tag.repo, revision), [tag.file], offline=offline)
    source = _with_weights(Source(config, None), found.folder / tag.file, facts, offline)
    told = {"source": f"{found.address}/{tag.file} ({tag.dialect})", "licence": tag.licence}
    return replace(source, config=source.config.replace(**told), cached=True)


def _of_folder(folder: Path, facts: Mapping[str, Any]) -> Source:
    config = folder / "config.json"
    if config.is_file():
        document = read_json(config)
        if "vit_zoo" in document:
            parsed, file = ModelConfig.parse(document, where=config), folder / "model.safetensors"
            if not file.is_file():
                raise InputError("has a config.json but no model.safetensors", where=folder)
            return _checked(parsed, SafetensorsFile(file), facts)
    return _of_file(checkpoint_in(folder), facts)


def _of_file(path: Path, facts: Mapping[str, Any]) -> Source:
    if path.suffix == ".toml":
        return Source(config_of(read_variant(path), **facts), None)
    kind = sniff(path)
    if kind == "json":
        document = read_json(path)
        if "weight_map" in document:
            return _read(read_checkpoint(path, "index"), facts, path)
        return Source(_without_weights(ModelConfig.parse(document, where=path), facts), None)
    if kind == "safetensors":
        opened = SafetensorsFile(path)
        if "vit_zoo" in opened.metadata:
            from vit_zoo.formats.artifact import config_from

            return _checked(config_from(opened.metadata["vit_zoo"], where=path), opened, facts)
        return _read(opened.tensors, facts, path)
    if kind in CHECKPOINTS:
        return _read(read_checkpoint(path, kind), facts, path)
    raise RefusedContent(f"is {KINDS.get(kind, f'a file of kind {kind}')}; a checkpoint is wanted", where=path)


def _of_module(module: Any, facts: Mapping[str, Any]) -> Source:
    """A live module: ours, or one of a library whose dialect we know."""
    from vit_zoo.files.pickles import tensors_of
    from vit_zoo.model import ViT

    where = type(module).__name__
    if not hasattr(module, "state_dict"):
        raise InputError(f"a model is a name, a path or a torch module, not {where}")
    tensors = tensors_of(module.state_dict(), where=where)
    if isinstance(module, ViT):
        if facts:
            raise InputError(f"states its own {next(iter(facts))}", where=where)
        random = module.config.random_seed if module.is_random() else None
        return Source(module.config.replace(random_seed=random), tensors, dialect="timm")
    return _read(tensors, facts, where, module)


def _read(tensors: Mapping[str, Stored], facts: Mapping[str, Any], where: Path | str, module: Any = None) -> Source:
    from vit_zoo.weights.beside import Beside
    from vit_zoo.weights.detect import detect, read

    dialect = detect(tensors, where=where)
    path = where if isinstance(where, Path) else None
    if module is not None:
        if dialect.opened(tensors).prefix not in dialect.prefixes:
            raise RefusedContent(
                f"wraps a {dialect.name} model and may do more than it", where=where, hint="pass the model in it"
            )
        beside = Beside(dialect.facts_of(module) if dialect.facts_of is not None else {})
    else:
        beside = Beside.of(path, dialect) if path is not None else Beside()
    reading = read(tensors, facts, dialect=dialect, config=beside.facts, where=where)
    stem = "".join(c if c.isalnum() or c in "_.-" else "_" for c in (path.stem if path else "model")).lstrip("_.-")
    origin = path.name if path else where
    labels = beside.labels if beside.labels and len(beside.labels) == reading.spec.num_classes else None
    images = beside.preprocess
    if images is not None and len(images.mean) != reading.spec.channels:
        images = None
    config = ModelConfig(
        name=stem[:96] or "model",
        spec=reading.spec,
        preprocess=None if images is None else images.for_size(reading.spec.image_size),
        source=f"{origin} ({reading.dialect.name})",
        labels=labels,
        resize=None if reading.recipe == "timm" else reading.recipe,
    )
    return Source(config, reading.tensors, path, reading.dialect.name, reading.origin, unwanted=reading.unwanted)


def _checked(config: ModelConfig, opened: SafetensorsFile, facts: Mapping[str, Any]) -> Source:
    """Our own file: it says what it is, and its header must agree; another image or patch size than its own is made."""
    from vit_zoo.weights.rules import check_tensors

    sizes = {name: value for name, value in facts.items() if name in ("image_size", "patch_size", "resize")}
    for name, value in facts.items():
        if name == "grid":
            raise InputError("its config says what grid it has", where=opened.path)
        if name not in sizes and config.spec.replace(**{name: value}) != config.spec:
            raise InputError(f"its config says {name} = {getattr(config.spec, name)}, not {value}", where=opened.path)
    wanted = config.spec.shapes()
    check_tensors(opened.tensors, wanted, where=opened.path)
    tensors = {name: opened.tensors[name] for name in wanted}
    origin = dict.fromkeys(type(config.spec).model_fields, "its own config")
    if not sizes:
        return Source(config, tensors, opened.path, "vitzoo", origin, opened.metadata.get("vit_zoo.sha256"))
    from vit_zoo.weights.detect import check_facts, resized

    check_facts(sizes, where=opened.path)
    resized_tensors, spec = resized(tensors, config.spec, sizes, config.resize or "timm", where=opened.path)
    if spec == config.spec:
        return Source(config, tensors, opened.path, "vitzoo", origin, opened.metadata.get("vit_zoo.sha256"))
    origin |= {name: "stated" for name in sizes if name != "resize"}
    preprocess = None if config.preprocess is None else config.preprocess.for_size(spec.image_size)
    return Source(
        config.replace(spec=spec, preprocess=preprocess, resize=sizes.get("resize", config.resize)),
        resized_tensors,
        opened.path,
        "vitzoo",
        origin,
    )


def _without_weights(config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
    spec = config.spec.replace(**facts) if facts else config.spec
    return config.replace(spec=spec, random_seed=None, source=None, licence=None)
