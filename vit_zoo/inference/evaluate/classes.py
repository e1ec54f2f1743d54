"""Classes of images by the names that folders and tables have for them: labels, WordNet ids, or indices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, did_you_mean, shown
from vit_zoo.model.config import LABELS
from vit_zoo.registry.labels import label_set, wordnet_ids

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

SHOWN = 3  # names in an error
IMAGENET = "imagenet1k"


def class_numbers(names: Iterable[str], config: ModelConfig, *, source: object, file: object) -> dict[str, int]:
    """Return the number of the class that each name means.

    All names are of one kind, the first of these that has them all: labels; labels in other letters, or their first word, as in
    `great_white_shark` for `great white shark, white shark, ...`; WordNet ids of ImageNet-1k; indices from 0. `source` is
    where the names come from, and `file` the exported file.

    Raises InputError for names that no kind has, with the first of them.
    """
    wanted = sorted(set(names))
    kinds = _kinds(config)
    found = [{name: number for name in wanted if (number := kind(name)) is not None} for kind in kinds]
    best = max(found, key=len)
    if len(best) < len(wanted):
        raise _unknown([name for name in wanted if name not in best], config, source, file)
    return best


def label_of(config: ModelConfig, number: int) -> str:
    """Return the name of a class as predictions have it."""
    return f"class {number}" if config.labels is None else config.labels[number]


def _kinds(config: ModelConfig) -> list[Callable[[str], int | None]]:
    """Return functions from a name to the number of a class, one for each kind of name."""
    labels = config.labels or ()
    exact = _unique(enumerate(labels))
    similar = _unique(enumerate(map(_plain, labels)))
    similar = {**_unique((i, _plain(label.partition(",")[0])) for i, label in enumerate(labels)), **similar}
    kinds: list[Callable[[str], int | None]] = [exact.get, lambda name: similar.get(_plain(name))]
    if config.spec.num_classes == label_set(IMAGENET)["classes"]:
        kinds.append({name: i for i, name in enumerate(wordnet_ids(IMAGENET))}.get)
    return [*kinds, lambda name: _index(name, config.spec.num_classes)]


def _unique(numbered: Iterable[tuple[int, str]]) -> Mapping[str, int]:
    """Return the number of each name that only one has: ImageNet has two cranes."""
    numbers: dict[str, int] = {}
    twice = set()
    for number, name in numbered:
        twice |= {name} & numbers.keys()
        numbers[name] = number
    return {name: number for name, number in numbers.items() if name not in twice}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _index(name: str, count: int) -> int | None:
    return int(name) if re.fullmatch("[0-9]{1,9}", name) and int(name) < count else None


def _unknown(names: list[str], config: ModelConfig, source: object, file: object) -> InputError:
    """Return the error about names that are no classes of the file."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(shown(name) for name in names[:SHOWN])
    cause = f"no class of {file} is called {listed}{more}"
    count = config.spec.num_classes
    if config.labels is None:
        hint = f"the file has no labels, so that classes are numbers from 0 to {count - 1}; {LABELS} states labels"
        return InputError(cause, where=source, hint=hint, options=[LABELS])
    near = did_you_mean(names[0], list(config.labels))
    some = ", ".join(map(shown, config.labels[:SHOWN])) + (", ..." if count > SHOWN else "")
    return InputError(cause + near, where=source, hint=f"its {count} classes are {some}, or numbers from 0")
