"""Sources: the config of a locator or a torch module and, if it has weights, its tensors under our names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vit_zoo.errors import HubError, InputError, Option, RefusedContent, notice
from vit_zoo.files import SafetensorsFile, read_json
from vit_zoo.files.checkpoints import CHECKPOINTS, checkpoint_in, read_checkpoint
from vit_zoo.formats import FORMATS
from vit_zoo.hub.download import PREFIX, Address, fetch
from vit_zoo.loading.checkpoint import Architecture, Checkpoint, FileSize, ModelLike, settle_size
from vit_zoo.loading.facts import check_without_head, of_model_facts, of_spec, parsed, patterns
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.locator import (
    CheckpointFile,
    ConfigFile,
    ExportedFile,
    Folder,
    HubRepo,
    Locator,
    RegistryName,
    TaggedName,
    file_locator,
    parse_locator,
)
from vit_zoo.loading.read_tensors import read_tensors
from vit_zoo.loading.stated import Description
from vit_zoo.model.config import ModelConfig, stored_problem_type
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry.configs import config_of
from vit_zoo.registry.family_file import read_variant
from vit_zoo.registry.lookup import Named, find, tag_meant
from vit_zoo.registry.pretrained_tags import Tag

HEAD_FIELDS = ("num_classes", "head_bias", "pool", "pool_tokens")  # the fields that a head in another file decides


def find_source(
    model: ModelLike,
    *,
    offline: bool | None = None,
    file_size: FileSize = None,
    allow_drop: Sequence[str] = (),
    **facts: Any,
) -> Architecture | Checkpoint:
    """Resolve a name, a path or a torch module.

    * `offline`: take the weights of tagged names and of `hf-hub:` repositories from the Hub's cache only.
    * `file_size`: the image size of the exported file that the model is for. If it is the size of the stored positions, or any,
      they are not resized for the images that the model's processor prepares.
    * `allow_drop`: patterns of tensors in a checkpoint that are not part of a ViT and may be left out.
    * `facts`: fields of the spec that a checkpoint does not state, such as heads; `problem_type`, `labels`, `preprocess`;
      `prefix`, where a file contains several models; `head`: the file of its linear head.

    Tells the user the checkpoint's notes. Raises InputError for a name or path that does not exist, RefusedContent for tensors
    that do not fit, HubError for weights that cannot be fetched.
    """
    facts, allow_drop = parsed(facts), patterns(allow_drop)
    description = Description.taken_from(facts)
    if allow_drop:
        facts["allow_drop"] = allow_drop
    if not isinstance(model, str | os.PathLike):
        source: Architecture | Checkpoint = of_module(model, **facts)
    else:
        source = resolve(parse_locator(model), facts, offline)
    if isinstance(source, Checkpoint):
        source = settle_size(source, file_size)
    return replace(source, config=description.of(source.config))


def find_architecture(name: str | os.PathLike[str], **facts: Any) -> ModelConfig:
    """Return the config of a name or a config file. Raises InputError for a model that has weights."""
    facts = parsed(facts)
    description = Description.taken_from(facts)
    match parse_locator(name, names_first=True):
        case RegistryName() | ConfigFile() as locator:
            source = resolve(locator, facts, None)
            if isinstance(source, Architecture) and source.config.source is None:
                return description.of(source.config)
        case Folder() | CheckpointFile() | ExportedFile() as locator:
            resolve(locator, facts, None)  # raises if it is not a model at all
    raise InputError("expected a name or a config, got a model with weights", where=name)


def published_weights(named: Named, facts: Mapping[str, Any], offline: bool | None) -> Checkpoint | None:
    """Return the weights that a name without a tag means, or None if none are known.

    They are those that ship with the name, else its default tag, the first one on the Hub. A name of another library means
    that library's weights. Raises InputError for facts that they do not have, HubError if they cannot be fetched.
    """
    alias = named.alias
    if named.variant.weights is not None:
        return _of_folder(named.variant.weights, facts)
    tag = tag_meant(named)
    if tag is None and alias is not None and alias.is_repository:
        source = _of_hub(Address(alias.alias), facts, offline)
        notice(f"'{alias.alias}' means the repository {PREFIX}{alias.alias}")
        return source
    if tag is None:
        return None
    _check_shapes(tag, facts)
    source = _of_tag(tag, facts, offline)
    name = tag.name if alias is None else alias.alias
    notice(f"'{name}' means the weights {tag.full_name} ({tag.address})")
    return source


def _check_shapes(tag: Tag, facts: Mapping[str, Any]) -> None:
    """Raise InputError for facts that weights can only have if they are made so, before anything is downloaded."""
    variant = find(tag.name).variant
    fields: dict[str, Any] = {name: facts[name] for name in ViTSpec.model_fields if name in facts}
    sizes: dict[str, Any] = {name: fields[name] for name in ("image_size", "patch_size") if name in fields}
    own, stated = (config_of(variant, tag, **some).spec for some in (sizes, fields))
    if own.shapes() != stated.shapes():
        name = next(name for name in fields if getattr(own, name) != getattr(stated, name))
        random = Option("random")
        message = f"the published weights have {name} = {getattr(own, name)}, not {getattr(stated, name)}"
        raise InputError(message, where=tag.full_name, hint=f"{random} makes random weights", options=[random])


def resolve(locator: Locator, facts: Mapping[str, Any], offline: bool | None) -> Architecture | Checkpoint:
    match locator:
        case HubRepo(address):
            return _of_hub(address, facts, offline)
        case RegistryName(named=named):
            return _architecture(named, facts)
        case TaggedName(named=named):
            assert named.tag is not None
            return _of_tag(named.tag, facts, offline)
        case Folder(path):
            return _of_folder(path, facts)
        case ConfigFile(path):
            return Architecture(_config_in(path, facts))
        case CheckpointFile(path, kind):
            return _of_file(path, kind, facts)
        case ExportedFile(path, kind) if kind in CHECKPOINTS:  # TorchScript archives, such as OpenAI's CLIP
            return _of_file(path, kind, facts)
        case ExportedFile(path, kind):
            raise RefusedContent(f"expected a checkpoint, got an exported {FORMATS[kind].title}", where=path)


def _architecture(named: Named, facts: Mapping[str, Any]) -> Architecture:
    check_without_head(facts, named.variant.name)
    return Architecture(config_of(named.variant, named.tag, **of_spec(facts)))


def fitting(config: ModelConfig, weights: str | os.PathLike[str], facts: Mapping[str, Any], offline: bool | None) -> Checkpoint:
    """Read a checkpoint of the architecture in `config`. Raises RefusedContent if it has another architecture."""
    own = {"num_classes"} if "num_classes" in facts else set()  # fields that the weights decide
    if "head" in facts:
        own |= {name for name in HEAD_FIELDS if name not in facts}
    stated = {name: value for name, value in {**config.spec.model_dump(), **facts}.items() if name not in own}
    source: Architecture | Checkpoint | None = resolve(parse_locator(weights), stated, offline)
    if isinstance(source, Architecture):
        locator = parse_locator(weights)
        source = published_weights(locator.named, {}, offline) if isinstance(locator, RegistryName) else None
        if source is None:
            raise InputError("has no weights", where=weights)
    assert isinstance(source, Checkpoint)
    own |= {"head_bias"} if "num_classes" in own else set()
    spec = config.spec.replace(**{name: getattr(source.config.spec, name) for name in own})
    if source.config.spec != spec:
        differing = [field for field in type(spec).model_fields if getattr(source.config.spec, field) != getattr(spec, field)]
        raise RefusedContent(f"weights of another architecture: {differing[0]} differs", where=weights)
    stated = {"problem_type": config.problem_type} if config.is_embedding and source.config.problem_type is None else {}
    stated = stated if spec.num_classes == config.spec.num_classes else {}
    return replace(source, config=source.config.replace(name=config.name, **stated))


def _of_hub(address: Address, facts: Mapping[str, Any], offline: bool | None) -> Checkpoint:
    """Fetch a repository in our layout, timm's or transformers', with the licence that its card states."""
    from vit_zoo.hub.front_matter import terms_of

    download = fetch(address, offline=offline)
    source = _of_folder(download.folder, facts)
    config, terms = source.config, terms_of(download.folder)
    metadata = {"source": _origin(str(download.address), source), "licence": config.licence or terms.licence}
    metadata["licence_link"] = config.licence_link or terms.licence_link
    if source.dialect != "vitzoo":
        metadata["name"] = download.address.repo.partition("/")[2].lstrip("_.-")[:96] or "model"
    return replace(source, config=config.replace(**metadata), cached=True)


def _origin(address: str, source: Checkpoint) -> str:
    """Return the origin of weights: the repository, and the origin that the repository states."""
    if source.dialect != "vitzoo":
        return f"{address} ({source.dialect})"
    stated = source.config.source
    return address if stated is None or stated.startswith(address) else f"{address}, from {stated}"


def _of_tag(tag: Tag, facts: Mapping[str, Any], offline: bool | None) -> Checkpoint:
    """Fetch the published weights of a name: the file that the tag names."""
    config = config_of(find(tag.name).variant, tag, **of_model_facts(facts))
    if not tag.is_on_hub:
        weights = Option("weights", "FILE")
        hint = f"download the file and pass {weights} with '{tag.full_name}'"
        message = f"the weights '{tag.tag}' of '{tag.name}' are at {tag.address}, licence {tag.licence}"
        raise HubError(message, hint=hint, options=[weights])
    revision = None if tag.revision == "unpinned" else tag.revision
    download = fetch(Address(tag.repo, revision), [tag.file], offline=offline)
    others = {name: value for name, value in facts.items() if name != "num_classes"}  # the head must fit too
    source = fitting(config, download.folder / tag.file, others, offline)
    read = source.config  # with a head from another file, its classes are not those of the tag
    labels = config.labels if read.spec.num_classes == config.spec.num_classes else None
    metadata = {
        "problem_type": read.problem_type,
        "source": f"{download.address}/{tag.file} ({tag.dialect})",
        "resize": read.resize,
        "random_seed": read.random_seed,
    }
    return replace(source, config=config.replace(spec=read.spec, labels=labels, **metadata), cached=True)


def _of_folder(folder: Path, facts: Mapping[str, Any]) -> Checkpoint:
    config = folder / "config.json"
    if config.is_file():
        document = read_json(config)
        if "vit_zoo" in document:
            parsed, file = ModelConfig.parse(document, where=config), folder / "model.safetensors"
            if not file.is_file():
                raise InputError("has a config.json but no model.safetensors", where=folder)
            _check_problem_type(parsed, document, config)
            return _checked(parsed, SafetensorsFile(file), facts)
    source = resolve(file_locator(checkpoint_in(folder)), facts, None)
    assert isinstance(source, Checkpoint)
    return source


def _check_problem_type(config: ModelConfig, document: Mapping[str, Any], where: Path) -> None:
    """Raise RefusedContent if what transformers reads of a published config.json is not what our part of it states."""
    from vit_zoo.weights.sidecar import problem_type_of

    stated = problem_type_of(document, where)
    if stated is not None and stored_problem_type(stated, config.spec.num_classes) != config.problem_type:
        cause = f"states two problem types: {stated}, and {config.problem_type or 'none'} under 'vit_zoo'"
        raise RefusedContent(cause, where=where, hint="make them the same")


def _of_file(path: Path, kind: str, facts: Mapping[str, Any]) -> Checkpoint:
    if kind == "safetensors":
        opened = SafetensorsFile(path)
        if "vit_zoo" in opened.metadata:
            from vit_zoo.formats.artifact import config_from

            return _checked(config_from(opened.metadata["vit_zoo"], where=path), opened, facts)
        return read_tensors(opened.tensors, facts, path)
    return read_tensors(read_checkpoint(path, kind), facts, path)


def _config_in(path: Path, facts: Mapping[str, Any]) -> ModelConfig:
    """Read the config in a TOML file with one variant, or in a config.json."""
    if path.suffix == ".toml":
        check_without_head(facts, path)
        return config_of(read_variant(path), **of_spec(facts))
    check_without_head(facts, path)
    config = ModelConfig.parse(read_json(path), where=path)
    spec = config.spec.replace(**of_spec(facts)) if facts else config.spec
    return config.replace(spec=spec, random_seed=None, source=None, licence=None)


def _checked(config: ModelConfig, opened: SafetensorsFile, facts: Mapping[str, Any]) -> Checkpoint:
    """Check a file of ours against its config, and resize its positions and patches for other sizes that `facts` state."""
    from vit_zoo.weights.translate import check_tensors

    sizes = {name: value for name, value in facts.items() if name in ("image_size", "patch_size", "resize")}
    check_without_head(facts, opened.path)
    for name, value in of_spec(facts).items():
        if name == "grid":
            raise InputError("the config states the grid", where=opened.path)
        if name == "prefix":
            raise InputError("prefix does not apply: the file contains one model of ours", where=opened.path)
        if name not in sizes and config.spec.replace(**{name: value}) != config.spec:
            raise InputError(f"the config states {name} = {getattr(config.spec, name)}, not {value}", where=opened.path)
    digest = opened.metadata.get("vit_zoo.sha256")
    config = config.for_weights(digest)
    shapes = config.spec.shapes()
    check_tensors(opened.tensors, shapes, where=opened.path)
    tensors = {name: opened.tensors[name] for name in shapes}
    origin = dict.fromkeys(type(config.spec).model_fields, "its own config")
    if not sizes:
        return Checkpoint(config, tensors, opened.path, "vitzoo", origin, digest)
    from vit_zoo.weights.read import check_facts, resized

    check_facts(sizes, where=opened.path)
    resized_tensors, spec = resized(tensors, config.spec, sizes, config.resize or "timm", where=opened.path)
    if spec == config.spec:
        return Checkpoint(config, tensors, opened.path, "vitzoo", origin, digest)
    origin |= {name: "stated" for name in sizes if name != "resize"}
    preprocess = None if config.preprocess is None else config.preprocess.for_size(spec.image_size)
    return Checkpoint(
        config.replace(spec=spec, preprocess=preprocess, resize=sizes.get("resize", config.resize), accuracy=None),
        resized_tensors,
        opened.path,
        "vitzoo",
        origin,
    )
