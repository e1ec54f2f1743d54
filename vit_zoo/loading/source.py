"""Sources: the config of a locator or a torch module and, if it has weights, its tensors under our names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from vit_zoo.errors import HubError, InputError, Option, RefusedContent, notice
from vit_zoo.files import SafetensorsFile, Stored, read_json
from vit_zoo.files.checkpoints import CHECKPOINTS, NAMES, checkpoint_in, read_checkpoint
from vit_zoo.formats import FORMATS
from vit_zoo.hub.download import PREFIX, Address, fetch
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
    shadowed_name,
)
from vit_zoo.model.config import ModelConfig, stored_problem_type
from vit_zoo.model.resize_recipes import UNSTATED
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.configs import config_of, preprocess_file
from vit_zoo.registry.family_file import read_variant
from vit_zoo.registry.lookup import Named, find, is_name, tag_meant, tag_of_file, tags_of
from vit_zoo.registry.pretrained_tags import Tag

if TYPE_CHECKING:
    from torch import nn

    from vit_zoo.weights.read import Reading
    from vit_zoo.weights.sidecar import Sidecar

ModelLike = Union[str, "os.PathLike[str]", "nn.Module"]
ASSUMED = ("heads", "norm_eps", "act", "pool")  # the fields that conventions of dialects decide
FileSize = tuple[int, int] | Literal["any"] | None
HEAD_FIELDS = ("num_classes", "head_bias", "pool", "pool_tokens")  # the fields that a head in another file decides


@dataclass(frozen=True)
class Architecture:
    """A model without weights."""

    config: ModelConfig


@dataclass(frozen=True)
class Checkpoint:
    """A model with weights: its config, and its tensors under our names, which are read on use."""

    config: ModelConfig
    tensors: Mapping[str, Stored]
    path: Path | None = None
    dialect: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)  # where each field of the spec comes from
    digest: str | None = None  # the content hash stated in the file
    unwanted: tuple[str, ...] = ()  # known tensors of the file that are not part of the model
    cached: bool = False  # whether the file is in the Hub's cache, which is not written to
    notes: tuple[str, ...] = ()  # what was decided: where the model is in the file, what is assumed, its image size (the last)
    as_stored: Reading | None = None  # the model with positions as stored, where they are resized for its processor's images

    def at_stored_size(self) -> Checkpoint:
        """Return the model with the positions as stored, and the preprocessing for that size."""
        if self.as_stored is None:
            return self
        spec, how = self.as_stored.spec, self.config.preprocess
        config = self.config.replace(spec=spec, preprocess=None if how is None else how.for_size(spec.image_size))
        tensors, origin = self.as_stored.tensors, self.as_stored.origin
        return replace(self, config=config, tensors=tensors, origin=origin, notes=self.notes[:-1], as_stored=None)

    def in_float32(self) -> Checkpoint:
        """Return the same weights with those in float64 rounded to float32, in which exported files compute."""
        if all(stored.dtype != "F64" for stored in self.tensors.values()):
            return self
        where = self.path or self.config.name
        tensors = {name: stored.single(name, where=where) for name, stored in self.tensors.items()}
        return replace(self, tensors=tensors, digest=None)


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
    * `facts`: fields of the spec that a checkpoint does not state, such as heads; `problem_type`; `prefix`, where a file contains
      several models; `head`: the file of its linear head.

    Tells the user the checkpoint's notes. Raises InputError for a name or path that does not exist, RefusedContent for tensors
    that do not fit, HubError for weights that cannot be fetched.
    """
    problem_type = facts.pop("problem_type", None)
    if allow_drop:
        facts["allow_drop"] = tuple(allow_drop)
    if not isinstance(model, str | os.PathLike):
        source: Architecture | Checkpoint = of_module(model, **facts)
    else:
        source = _resolve(parse_locator(model), facts, offline)
    if isinstance(source, Checkpoint):
        source = settle_size(source, file_size)
    return replace(source, config=source.config.with_problem_type(problem_type))


def settle_size(source: Checkpoint, file_size: FileSize) -> Checkpoint:
    """Return the model for an exported file of this image size, as in `find_source`, and tell the user its notes."""
    if source.as_stored is not None and file_size in ("any", source.as_stored.spec.image_size):
        source = source.at_stored_size()
    tell(source)
    return source


def tell(source: Checkpoint) -> None:
    """Tell the user what was decided about a checkpoint, in one line."""
    if source.notes:
        notice(f"{source.config.name if source.path is None else source.path.name}: {'; '.join(source.notes)}")


def find_architecture(name: str | os.PathLike[str], **facts: Any) -> ModelConfig:
    """Return the config of a name or a config file. Raises InputError for a model that has weights."""
    problem_type = facts.pop("problem_type", None)
    match parse_locator(name, names_first=True):
        case RegistryName() | ConfigFile() as locator:
            source = _resolve(locator, facts, None)
            if isinstance(source, Architecture) and source.config.source is None:
                return source.config.with_problem_type(problem_type)
        case Folder() | CheckpointFile() | ExportedFile() as locator:
            _resolve(locator, facts, None)  # raises if it is not a model at all
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


def with_weights(model: ModelLike, weights: str | os.PathLike[str], *, offline: bool | None = None, **facts: Any) -> Checkpoint:
    """Read a checkpoint of the architecture of `model`. Raises RefusedContent if it has another one.

    With `num_classes` in the facts, the checkpoint may have another number of classes. What the registry or a folder states
    about its own weights (preprocessing, labels, licence) is not transferred to others; a config file is a statement.
    """
    named: Named | None = None
    of_model = _of_model(facts)
    if not isinstance(model, str | os.PathLike):
        config = of_module(model, **of_model).config
    else:
        locator = parse_locator(model)
        shadowed = shadowed_name(str(model), locator)
        if shadowed is not None:
            notice(shadowed)
        match locator:
            case RegistryName() | TaggedName():
                named = locator.named
                config = config_of(named.variant, named.tag, **of_model)
            case ConfigFile(path) if path.suffix == ".toml":
                named = Named(read_variant(path))
                config = config_of(named.variant, **of_model)
            case ConfigFile():
                config = _resolve(locator, of_model, offline).config
                return _described(config, _fitting(config, weights, facts, offline))
            case _:
                others = {name: value for name, value in of_model.items() if name != "num_classes"}
                config = _resolve(locator, others, offline).config
    source = _fitting(config, weights, facts, offline)
    if named is not None:
        return _described_by_row(named, config, source, weights, facts)
    return _not_described(config, source, weights, "state it in a config file, and name that file with the weights")


def _resolve(locator: Locator, facts: Mapping[str, Any], offline: bool | None) -> Architecture | Checkpoint:
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
    _check_without_head(facts, named.variant.name)
    return Architecture(config_of(named.variant, named.tag, **_of_spec(facts)))


def _of_spec(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts without `allow_drop` and `head`, which concern only the tensors of files."""
    return {name: value for name, value in facts.items() if name not in ("allow_drop", "head")}


def _of_model(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that concern the model for which weights are read, and not only their file."""
    return {name: value for name, value in _of_spec(facts).items() if name != "prefix"}


def _check_without_head(facts: Mapping[str, Any], where: object) -> None:
    """Raise InputError if a file of a head is stated for what is not a checkpoint of another library."""
    if "head" in facts:
        raise InputError("head applies to a checkpoint of another library without a head", where=where)


def _fitting(config: ModelConfig, weights: str | os.PathLike[str], facts: Mapping[str, Any], offline: bool | None) -> Checkpoint:
    """Read a checkpoint of the architecture in `config`. Raises RefusedContent if it has another architecture."""
    own = {"num_classes"} if "num_classes" in facts else set()  # fields that the weights decide
    if "head" in facts:
        own |= {name for name in HEAD_FIELDS if name not in facts}
    stated = {name: value for name, value in {**config.spec.model_dump(), **facts}.items() if name not in own}
    source: Architecture | Checkpoint | None = _resolve(parse_locator(weights), stated, offline)
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
    return replace(source, config=source.config.replace(name=config.name))


def _described(config: ModelConfig, source: Checkpoint) -> Checkpoint:
    """Describe weights by the user's own config; what it leaves open comes from the folder of the weights."""
    own = source.config
    labels = config.labels if config.labels is not None and len(config.labels) == own.spec.num_classes else own.labels
    if None not in (config.preprocess, own.preprocess) and config.preprocess != own.preprocess:
        notice(f"{config.name}: preprocessing is that of the config; the folder of the weights states another")
    preprocess, licence = config.preprocess or own.preprocess, own.licence or config.licence
    return replace(source, config=own.replace(preprocess=preprocess, labels=labels, licence=licence))


def _described_by_row(
    named: Named, config: ModelConfig, source: Checkpoint, weights: str | os.PathLike[str], facts: Mapping[str, Any]
) -> Checkpoint:
    """Describe weights that are used with a name of the registry.

    A row describes its published weights: its preprocessing and labels are used if the user states by a tag that the weights
    are those, and their dialect agrees. What the folder of the weights states comes first. A row of the user's own zoo files is
    the user's statement.
    """
    variant, own = named.variant, source.config
    stated_in = preprocess_file(variant)
    if named.tag is None and stated_in is not None and zoo_folder() not in stated_in.parents:
        return _described(config, source)
    file = "" if source.path is None else source.path.name
    tag = named.tag
    if tag is not None and tag.has_dialect(source.dialect):
        other = None if file in NAMES else tag_of_file(variant.name, file)
        if other is not None and other != tag:
            raise InputError(f"is the file of {other.full_name}, not of {tag.full_name}", where=weights)
        row = config_of(variant, tag, **{**_of_model(facts), "num_classes": own.spec.num_classes})
        if Path(tag.file).name != file and own.preprocess is None:
            notice(f"{weights}: preprocessing is that of {tag.full_name}, whose file is {Path(tag.file).name}")
        licence = own.licence or (tag.licence if own.spec.num_classes == tag.num_classes else None)
        description = {"preprocess": own.preprocess or row.preprocess, "labels": own.labels or row.labels, "licence": licence}
        return replace(source, config=own.replace(**description))
    published = tags_of(variant.name).values() if is_name(variant.name) else ()
    fitting = next((tag.full_name for tag in published if tag.has_dialect(source.dialect)), None)
    tags = "" if fitting is None else f", or name published weights, such as {fitting}"
    return _not_described(
        config, source, weights, f'state it as [preprocess] in a TOML file with extends = "{variant.name}"{tags}'
    )


def _not_described(config: ModelConfig, source: Checkpoint, weights: str | os.PathLike[str], way: str) -> Checkpoint:
    """Return weights with the description of their own folder, and tell what a config of other weights would have added."""
    parts = {"preprocess": "preprocessing", "labels": "labels"}
    lost = [text for name, text in parts.items() if getattr(config, name) is not None and getattr(source.config, name) is None]
    if lost:
        notice(f"{weights}: {' and '.join(lost)} left out: what {config.name} states is of other weights; {way}")
    return source


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
    config = config_of(find(tag.name).variant, tag, **_of_model(facts))
    if not tag.is_on_hub:
        weights = Option("weights", "FILE")
        hint = f"download the file and pass {weights} with '{tag.full_name}'"
        message = f"the weights '{tag.tag}' of '{tag.name}' are at {tag.address}, licence {tag.licence}"
        raise HubError(message, hint=hint, options=[weights])
    revision = None if tag.revision == "unpinned" else tag.revision
    download = fetch(Address(tag.repo, revision), [tag.file], offline=offline)
    others = {name: value for name, value in facts.items() if name != "num_classes"}  # the head must fit too
    source = _fitting(config, download.folder / tag.file, others, offline)
    metadata = {"source": f"{download.address}/{tag.file} ({tag.dialect})", "resize": source.config.resize}
    return replace(source, config=config.replace(**metadata, random_seed=source.config.random_seed), cached=True)


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
    source = _resolve(file_locator(checkpoint_in(folder)), facts, None)
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
        return _read(opened.tensors, facts, path)
    return _read(read_checkpoint(path, kind), facts, path)


def _config_in(path: Path, facts: Mapping[str, Any]) -> ModelConfig:
    """Read the config in a TOML file with one variant, or in a config.json."""
    if path.suffix == ".toml":
        _check_without_head(facts, path)
        return config_of(read_variant(path), **_of_spec(facts))
    _check_without_head(facts, path)
    config = ModelConfig.parse(read_json(path), where=path)
    spec = config.spec.replace(**_of_spec(facts)) if facts else config.spec
    return config.replace(spec=spec, random_seed=None, source=None, licence=None)


def of_module(module: Any, *, check: bool = True, **facts: Any) -> Checkpoint:
    """Return the checkpoint of a torch module: ours, or one of a library whose dialect is known.

    With `check`, the module and what was read from it compute the same for the same images. Raises CheckFailed if they do
    not, RefusedContent for a module that is not read.
    """
    import torch

    from vit_zoo.weights.sidecar import SAVE_STATE

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"expected a name, a path or a torch module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        cause = "is a TorchScript module, whose class is not known"
        raise RefusedContent(cause, where=type(module).__name__, hint=SAVE_STATE)
    from vit_zoo.loading.live_module import check_tensors_of_vit, is_untouched, tensors_of_module, uncompiled, with_plain_heads
    from vit_zoo.loading.module_check import check_module
    from vit_zoo.model.vit import ViT

    module = uncompiled(module)
    where = type(module).__name__
    _check_without_head(facts, where)
    tensors, notes = tensors_of_module(module, where=where)
    if not isinstance(module, ViT):
        try:
            source = _read(tensors, facts, where, module)
        except RefusedContent as error:
            if any(option.name == "allow_drop" for option in error.options):  # its code computes with these tensors
                error.hint, error.options = SAVE_STATE, ()
            raise
        if check:
            _check_foreign(module, source, tensors, facts, where)
        return replace(source, notes=(*source.notes, *notes))
    if _of_spec(facts):
        raise InputError(f"cannot set {next(iter(_of_spec(facts)))}: the module has a config", where=where)
    tensors = with_plain_heads(module, tensors)
    check_tensors_of_vit(module, tensors, where=where)
    config = module.config if module.is_random() else module.config.replace(random_seed=None, random_part=None)
    source = Checkpoint(config, tensors, dialect="timm", notes=notes)
    if check and not is_untouched(module):
        check_module(module, source, where=where)
    return source


def _check_foreign(module: Any, source: Checkpoint, tensors: Mapping[str, Stored], facts: Mapping[str, Any], where: str) -> None:
    """Compare another library's module with what is read from it, at the size that it has before `facts` resize it."""
    from vit_zoo.loading.module_check import check_module, padded
    from vit_zoo.weights.detect import detect
    from vit_zoo.weights.keys import open_keys

    sizes = {"image_size", "patch_size", "resize"} & set(facts)
    if sizes:
        with suppress(InputError):  # the module does not state its size: then the stated size is the module's
            source = _read(tensors, {name: value for name, value in facts.items() if name not in sizes}, where, module)
    dialect = detect(tensors, where=where)
    opened = open_keys(dialect, dialect.prepare(dict(tensors)))
    inner = opened.prefix.rstrip(".")
    stated = {} if dialect.facts_from_module is None else dialect.facts_from_module(module)

    def run(module: Any, images: Any) -> Any:
        return dialect.run_module(module, padded(images, stated.get("image_size"), source.config.spec.patch_size))

    check_module(module, source, run=run, key_of=opened.key_for_ours, inner=inner, where=where)


def _read(tensors: Mapping[str, Stored], facts: Mapping[str, Any], where: Path | str, module: Any = None) -> Checkpoint:
    from vit_zoo.weights.candidates import Choice, check_head_of, choose, with_head
    from vit_zoo.weights.detect import detect
    from vit_zoo.weights.dialects.timm import TIMM
    from vit_zoo.weights.head_file import with_head_file
    from vit_zoo.weights.keys import open_keys
    from vit_zoo.weights.read import read
    from vit_zoo.weights.sidecar import Sidecar

    facts = dict(facts)
    allow_drop, prefix, head_file = facts.pop("allow_drop", ()), facts.pop("prefix", None), facts.pop("head", None)
    if module is None:
        chosen = choose(tensors, prefix=prefix, allow_drop=allow_drop, where=where)
        dialect = detect(chosen.tensors, where=where)
    else:
        if prefix is not None:
            raise InputError("prefix does not apply to a module", where=where, hint="pass the inner model")
        dialect = detect(tensors, where=where)
        whole, head = with_head(dialect, tensors, where=where)
        if head is not None:
            check_head_of(module, head, where=where)
        chosen = Choice(whole)
    path = where if isinstance(where, Path) else None
    if module is not None:
        outer = open_keys(dialect, tensors).prefix
        if outer not in dialect.prefixes:
            cause = f"is a wrapper of a model of dialect {dialect.name}, and may compute something else"
            raise RefusedContent(cause, where=where, hint=f"pass the inner model, module.{outer.rstrip('.')}")
        sidecar = Sidecar.of_module(module, dialect, where=where)
    else:
        sidecar = Sidecar.of(path, dialect) if path is not None else Sidecar()
    model, stated = chosen.tensors, sidecar.facts
    of_head: dict[str, Any] = {}
    if head_file is not None:
        model, of_head = with_head_file(model, dialect, _head_in(head_file), where=where, head_where=head_file)
        # a backbone that is classified by a separate file is not of timm, although it has the names of timm's
        stated = {**({"resize": UNSTATED} if dialect is TIMM else {}), **stated, **of_head}
    try:
        reading = read(model, facts, dialect=dialect, config=stated, where=where)
    except InputError as error:
        if error.details is not None and chosen.notes:
            error.details = {**error.details, "notes": list(chosen.notes)}
        raise
    notes, as_stored = chosen.notes, None
    if head_file is not None:
        both = " of the class token and the mean of the patch tokens" if "pool" in of_head else ""
        notes += (f"its head{both} is in {Path(head_file).name}",)
        reading.origin.update(dict.fromkeys(("num_classes", *of_head), Path(head_file).name))
    if module is None:  # what a live module does not state is compared with what it computes
        notes += _assumptions(reading, with_config=bool(sidecar.facts))
        size = _other_size(sidecar, reading.spec, facts, where)
        if size is not None:
            notes += (_size_note(size, reading.spec.image_size, interpolates=sidecar.interpolates),)
        if size is not None and sidecar.interpolates:
            as_stored = reading
            reading = read(model, {**facts, "image_size": size}, dialect=dialect, config=stated, where=where)
            reading.origin["image_size"] = "its processor"
    stem = "".join(c if c.isalnum() or c in "_.-" else "_" for c in (path.stem if path else "model")).lstrip("_.-")
    origin = path.name if path else where
    labels = sidecar.labels if sidecar.labels and len(sidecar.labels) == reading.spec.num_classes else None
    preprocess = sidecar.preprocess
    if preprocess is not None and len(preprocess.mean) != reading.spec.channels:
        preprocess = None
    config = ModelConfig(
        name=stem[:96] or "model",
        spec=reading.spec,
        preprocess=None if preprocess is None else preprocess.for_size(reading.spec.image_size),
        source=f"{origin} ({reading.dialect.name})",
        labels=labels,
        resize=None if reading.recipe == "timm" else reading.recipe,
        problem_type=stored_problem_type(sidecar.problem_type, reading.spec.num_classes),
    )
    return Checkpoint(
        config,
        reading.tensors,
        path,
        reading.dialect.name,
        reading.origin,
        unwanted=(*chosen.left_out, *reading.unwanted),
        notes=notes,
        as_stored=as_stored,
    )


def _head_in(file: str | os.PathLike[str]) -> Mapping[str, Stored]:
    """Return the tensors of the file of a head. Raises InputError if there is none."""
    if not isinstance(file, str | os.PathLike):
        raise InputError(f"head is the file of a linear head, not {file!r}; nearest: heads")
    path = Path(file)
    if not path.is_file():
        raise InputError("no such file", where=path, hint="head is the file of a linear head")
    return read_checkpoint(path)


def _assumptions(reading: Reading, *, with_config: bool) -> tuple[str, ...]:
    """The line about the fields that neither the file nor its config nor the user states, if there are any.

    A config of a class that pools in one way does not mention it.
    """
    convention = f"convention of {reading.dialect.name}"
    fields = [name for name in ASSUMED if reading.origin[name] == convention]
    if with_config and fields == ["pool"]:
        return ()
    values = ", ".join(f"{name} = {getattr(reading.spec, name)}" for name in fields)
    return (f"assumed by {convention}: {values}",) if fields else ()


def _other_size(sidecar: Sidecar, spec: ViTSpec, facts: Mapping[str, Any], where: object) -> tuple[int, int] | None:
    """Return the size of the images that the sidecar's preprocessing makes, if it is not the model's and no size is stated.

    Raises InputError if the library would interpolate positions for images that patches do not divide.
    """
    preprocess = sidecar.preprocess
    if preprocess is None or len(preprocess.mean) != spec.channels or preprocess.size == spec.image_size or "image_size" in facts:
        return None
    (height, width), (p, q) = preprocess.size, spec.patch_size
    if sidecar.interpolates and (height % p or width % q):
        cause = f"its preprocessing makes images of {_by(preprocess.size)}, which patches of {_by(spec.patch_size)} do not divide"
        hint = f"state the size: image_size={_stated(spec.image_size)} is that of the stored positions"
        raise InputError(cause, where=where, hint=hint)
    return preprocess.size


def _size_note(prepared: tuple[int, int], stored: tuple[int, int], *, interpolates: bool) -> str:
    if interpolates:
        cause = f"the model takes images of {_by(prepared)}, as its processor prepares them, and not of {_by(stored)}"
        return f"{cause}; image_size={_stated(stored)} keeps the stored size"
    cause = f"its processor prepares images of {_by(prepared)}, but the model takes {_by(stored)}, which is used"
    return f"{cause}; image_size={_stated(prepared)} resizes the model"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _stated(size: tuple[int, int]) -> str:
    """Return a size as a user states it."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]},{size[1]}"


def _checked(config: ModelConfig, opened: SafetensorsFile, facts: Mapping[str, Any]) -> Checkpoint:
    """Check a file of ours against its config, and resize its positions and patches for other sizes that `facts` state."""
    from vit_zoo.weights.translate import check_tensors

    sizes = {name: value for name, value in facts.items() if name in ("image_size", "patch_size", "resize")}
    _check_without_head(facts, opened.path)
    for name, value in _of_spec(facts).items():
        if name == "grid":
            raise InputError("the config states the grid", where=opened.path)
        if name == "prefix":
            raise InputError("prefix does not apply: the file contains one model of ours", where=opened.path)
        if name not in sizes and config.spec.replace(**{name: value}) != config.spec:
            raise InputError(f"the config states {name} = {getattr(config.spec, name)}, not {value}", where=opened.path)
    shapes = config.spec.shapes()
    check_tensors(opened.tensors, shapes, where=opened.path)
    tensors = {name: opened.tensors[name] for name in shapes}
    origin = dict.fromkeys(type(config.spec).model_fields, "its own config")
    if not sizes:
        return Checkpoint(config, tensors, opened.path, "vitzoo", origin, opened.metadata.get("vit_zoo.sha256"))
    from vit_zoo.weights.read import check_facts, resized

    check_facts(sizes, where=opened.path)
    resized_tensors, spec = resized(tensors, config.spec, sizes, config.resize or "timm", where=opened.path)
    if spec == config.spec:
        return Checkpoint(config, tensors, opened.path, "vitzoo", origin, opened.metadata.get("vit_zoo.sha256"))
    origin |= {name: "stated" for name in sizes if name != "resize"}
    preprocess = None if config.preprocess is None else config.preprocess.for_size(spec.image_size)
    return Checkpoint(
        config.replace(spec=spec, preprocess=preprocess, resize=sizes.get("resize", config.resize)),
        resized_tensors,
        opened.path,
        "vitzoo",
        origin,
    )
