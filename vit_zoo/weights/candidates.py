"""The model in a checkpoint file: found under any nesting and any prefix, with what surrounds it left out by name.

Names of tensors in nested dictionaries are joined by dots. Nothing is left out silently: a `Choice` lists it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vit_zoo.errors import InputError, RefusedContent, fact
from vit_zoo.files import DTYPES, Stored
from vit_zoo.weights.detect import detect, opened_by
from vit_zoo.weights.dialect import Dialect
from vit_zoo.weights.dialects import DIALECTS
from vit_zoo.weights.replaced_head import replace_head
from vit_zoo.weights.translate import listed, matches

Tensors = Mapping[str, Stored]

# parts that torch.compile, activation checkpointing and FSDP put into names, anywhere
SHELL = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_fpw_module)\.")
# Of two copies of a model, the one that the source's own evaluation takes, and the other. Sources: facebookresearch/dino
# (eval_linear.py) and dinov2 (eval/setup.py); facebookresearch/moco-v3 (main_lincls.py); solo-learn (main_linear.py).
COPIES = (("teacher", "student"), ("base_encoder", "momentum_encoder"), ("backbone", "momentum_backbone"))
MAX_PLACES = 64  # of models in a file; each is compared with each
# The same for the outermost name: timm (models/_helpers.py, use_ema) and DeiT (main.py).
AVERAGED, PLAIN = ("state_dict_ema", "model_ema"), ("state_dict", "model")


@dataclass(frozen=True)
class Choice:
    """The model in a file.

    * `tensors`: its tensors, by their names within the model.
    * `prefix`: what stood before these names in the file.
    * `left_out`: names in the file of tensors that are not part of the model.
    * `notes`: what was decided, for the user.
    """

    tensors: dict[str, Stored]
    prefix: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A model of a dialect in a file.

    `stem` stands before the names of the dialect's rules; `prefix` is the stem without the prefix that the dialect itself has.
    """

    stem: str
    prefix: str
    dialect: Dialect


def choose(tensors: Tensors, *, prefix: object = None, allow_drop: Sequence[str] = (), where: object) -> Choice:
    """The one model in a file, or the one under `prefix`.

    `allow_drop` are patterns of names of tensors that are not part of a ViT and may be left out. Raises InputError for several
    models, RefusedContent for layers after the model that are more than a linear head.
    """
    if any("/" in name for name in tensors):  # names of flax and Keras, whose dialects know their prefixes
        if prefix is not None:
            raise InputError("prefix does not apply: it is for the dictionaries and modules of torch files", where=where)
        return _without_unknown(dict(tensors), "", {name: name for name in tensors}, allow_drop, where)
    keys = {SHELL.sub("", key): key for key in tensors}
    if len(keys) < len(tensors):  # two tensors would have the same name
        keys = {key: key for key in tensors}
    names = {name: tensors[key] for name, key in keys.items()}
    start = "" if prefix is None else _dotted(prefix)
    scope = {name: tensor for name, tensor in names.items() if name.startswith(start)}
    inside = _candidates(scope, where)
    exact = [each for each in inside if each.prefix == start]
    found = exact if prefix is not None and (exact or not start) else inside
    if prefix is not None and not found:
        every = _candidates(names, where)
        found = [each for each in every if start and f".{start}" in f".{each.prefix}"]  # without the outer names
        if len(found) != 1:
            raise _which(f"no ViT under prefix {start.rstrip('.')!r}", every, where)
        start = found[0].prefix[: f".{found[0].prefix}".index(f".{start}") + len(start)]
        scope = {name: tensor for name, tensor in names.items() if name.startswith(start)}
    if not found:  # damaged, or not a ViT: what the usual outer dictionary holds shows best what is wrong
        outer = (f"{key}." for key in (*AVERAGED, *PLAIN))
        start = next((each for each in outer if any(name.startswith(each) for name in names)), _outer(names))
        inner = {name.removeprefix(start): tensor for name, tensor in names.items() if name.startswith(start)}
        return _without_unknown(inner, start, keys, allow_drop, where)
    chosen = _one_of(found, scope, where)
    others = [each for each in inside if each is not chosen]
    copies = tuple(each.stem for each in others if not chosen.stem.startswith(each.stem))
    model = {
        name.removeprefix(chosen.prefix): tensor
        for name, tensor in scope.items()
        if name.startswith(chosen.prefix) and not name.startswith(copies)
    }
    place = _place(chosen, others)
    beside = {name: tensor for name, tensor in scope.items() if name.startswith(place)} if others else scope
    model, head = replace_head(chosen.dialect, chosen.prefix, model, beside, allow_drop, where)
    notes = [f"the model is under {_shown(chosen.prefix)}"] if chosen.prefix else []
    if copies:
        notes.append(f"the one under {' and '.join(map(_shown, copies))} is not taken")
    if head is not None:
        pooler = chosen.dialect.their_name("pre_logits.weight")
        after_pooler = ", after its pooler" if any(name.endswith(pooler) for name in model) else ""
        notes.append(f"{head!r} is read as its head, one linear layer{after_pooler}")
    used = {chosen.prefix + name for name in model} | {f"{head}.weight", f"{head}.bias"}
    left_out = [name for name in names if name not in used]
    named = [keys[name] for name in left_out if not name.startswith(copies)]
    if named:
        notes.append(f"left out: {listed(named)}")
    return Choice(model, chosen.prefix, tuple(keys[name] for name in left_out), tuple(notes))


def _candidates(tensors: Tensors, where: object) -> list[Candidate]:
    """The places where all names of a dialect's signature stand after the same stem.

    Of several such dialects, the one with the longest prefix of its own is taken, otherwise the first. Raises RefusedContent for
    more places than any file has.
    """
    stems: dict[str, list[Dialect]] = {}
    for dialect in DIALECTS:
        first = dialect.signature[0]
        for name in tensors:
            if name == first or name.endswith(f".{first}"):
                stems.setdefault(name.removesuffix(first), []).append(dialect)
    if len(stems) > MAX_PLACES:
        first, last = (next(each) for each in (iter(stems), reversed(stems)))
        cause = f"has parts of models in {len(stems):,} places, {_shown(first)} to {_shown(last)}; the limit is {MAX_PLACES}"
        raise RefusedContent(cause, where=where)
    found = []
    for stem, dialects in stems.items():
        owns = [(max((own for own in d.prefixes if _ends(stem, own)), key=len, default=None), d) for d in dialects]
        known = [(own, dialect) for own, dialect in owns if own is not None]
        # a dialect that names the stem itself comes first: open_clip's towers of timm have timm's names under `visual.trunk.`
        for own, dialect in sorted(known, key=lambda each: -len(each[0])):
            prefix = stem.removesuffix(own)
            # other models in the same place, such as a teacher beside the student, have longer stems
            longer = tuple(other for other in stems if other != stem and other.startswith(stem))
            model = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix) and not name.startswith(longer)
            }
            opened, shapes = opened_by(dialect, model)
            if opened.prefix == own and all(name in shapes for name in dialect.signature) and dialect.matches_shapes(shapes):
                found.append(Candidate(stem, prefix, dialect))
                break
    return found


def _ends(stem: str, own: str) -> bool:
    return not own or stem == own or stem.endswith(f".{own}")


def _one_of(found: Sequence[Candidate], tensors: Tensors, where: object) -> Candidate:
    """The only candidate, or the one of which the others are copies. Raises InputError if there are several."""
    left = list(found)
    parts = {
        each.stem: {name.removeprefix(each.stem): tensor for name, tensor in tensors.items() if name.startswith(each.stem)}
        for each in (found if len(found) > 1 else ())
    }
    for one in found:
        for other in found:
            if one in left and other in left and one is not other and _is_copy(other, one, parts):
                left.remove(other)
    if len(left) > 1:
        places = " and ".join(_shown(each.prefix) for each in left)
        raise _which(f"contains {len(left)} models: under {places}", left, where)
    return left[0]


def _is_copy(other: Candidate, one: Candidate, parts: Mapping[str, Tensors]) -> bool:
    """Whether `other` is a copy of `one` that need not be asked about: the same values, or one that evaluation does not take.

    `parts` are the tensors of each, by its stem and their names after it.
    """
    if other.dialect is not one.dialect:
        return False
    theirs, ours = parts[other.stem], parts[one.stem]
    shapes = [{name: tensor.shape for name, tensor in each.items() if one.dialect.has_rule_for(name)} for each in (theirs, ours)]
    if shapes[0] != shapes[1]:
        return False
    if _is_preferred(one.stem, other.stem):
        return True
    return theirs.keys() == ours.keys() and all(_equal(theirs[name], ours[name]) for name in ours)


def _is_preferred(stem: str, other: str) -> bool:
    """Whether the source's own evaluation takes the model under `stem` and not that under `other`."""
    parts, others = (_parts(each) for each in (stem, other))
    if "teacher" in parts:  # of which one may be stored without the module that also has the projection
        parts, others = ([part for part in each if part != "backbone"] for each in (parts, others))
    different = [i for i, pair in enumerate(zip(parts, others, strict=False)) if pair[0] != pair[1]]
    if len(parts) != len(others) or len(different) != 1:
        return False
    pair = parts[different[0]], others[different[0]]
    if different[0] == 0 and pair[0] in AVERAGED and pair[1] in PLAIN:
        return True
    # teacher and student are also words of distillation, whose product is the student: in self-supervised training, they have
    # a backbone beside the projection
    return pair in COPIES and (pair[0] != "teacher" or "backbone" in _parts(stem))


def _parts(stem: str) -> list[str]:
    return [part for part in stem.split(".") if part and part != "module"]


def _equal(a: Stored, b: Stored) -> bool:
    import numpy as np

    if a.dtype != b.dtype or a.dtype not in DTYPES or a.shape != b.shape:
        return False
    first, second = a.array(), b.array()
    return first is second or np.array_equal(first, second)


def _without_unknown(
    model: dict[str, Stored], prefix: str, keys: Mapping[str, str], allow_drop: Sequence[str], where: object
) -> Choice:
    """The choice of tensors in which no model was found, without the unknown ones that may be left out."""
    gone: list[str] = []
    if allow_drop:
        opened, _ = opened_by(detect(model, where=where), model)
        gone = [n for n in opened.unknown() if n in model and any(matches(prefix + n, pattern) for pattern in allow_drop)]
    rest = {name: tensor for name, tensor in model.items() if name not in gone}
    left_out = tuple(keys[prefix + name] for name in gone)
    notes = (f"left out: {listed(left_out)}",) if left_out else ()
    return Choice(rest, prefix, left_out, notes)


def _outer(names: Iterable[str]) -> str:
    """The parts with which all names begin."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{column[0]}." for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def _dotted(prefix: object) -> str:
    """A prefix as the user states it, with or without its last dot, as names begin with it."""
    text = SHELL.sub("", f"{prefix}".strip(".") + ".")
    return "" if text == "." else text


def _shown(prefix: str) -> str:
    return repr(prefix.rstrip(".")) if prefix else "no prefix"


def _place(one: Candidate, others: Sequence[Candidate]) -> str:
    """The shortest prefix of a model that none of the others has, under which its head can be too."""
    parts, other_parts = one.prefix.split(".")[:-1], [other.prefix.split(".")[:-1] for other in others]
    lengths = (k for k in range(1, len(parts) + 1) if all(other[:k] != parts[:k] for other in other_parts))
    return "".join(f"{part}." for part in parts[: next(lengths, len(parts))])


def _which(cause: str, found: Iterable[Candidate], where: object) -> InputError:
    """The error that asks which of these models is meant."""
    found = list(found)
    options = [fact("prefix", _place(each, [other for other in found if other is not each]).rstrip(".")) for each in found]
    hint = f"state which: {' or '.join(map(str, options))}" if options else None
    return InputError(cause, where=where, hint=hint, options=options)
