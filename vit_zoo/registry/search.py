"""Search of registry names by a pattern, a part of a name, or a name of another library."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from vit_zoo.errors import InputError, did_you_mean, notice
from vit_zoo.registry.aliases import Alias, read_aliases
from vit_zoo.registry.catalog import families, variants, zoo
from vit_zoo.registry.lookup import find
from vit_zoo.registry.other_architectures import reason_by_name

GLOB = frozenset("*?[")
MIN_LENGTH = 2  # characters of a part of a name
SHOWN = 3  # names of each other library in a notice


def search(pattern: str) -> list[str]:
    """Return the registry names that a pattern or a word stands for, in the zoo's order.

    A pattern with `*`, `?` or `[` is compared with whole names. A word is a name, or else a part of a name or of a family,
    in upper or lower case. Where no name here matches, names of other libraries are searched, and a notice says which ones
    matched. Raises InputError with the nearest names if nothing matches.
    """
    names, wild = list(variants()), bool(GLOB & set(pattern))
    aliases, ambiguous_names = read_aliases(zoo().folders) if not wild and pattern not in names else ({}, {})
    if wild:
        matched = fnmatch.filter(names, pattern)
    elif pattern in names:
        matched = [pattern]
    elif pattern.removeprefix("timm/") in aliases:
        return _of_aliases(pattern, [aliases[pattern.removeprefix("timm/")]])
    elif len(pattern) < MIN_LENGTH:
        return _nothing(pattern)
    else:
        word = pattern.lower()
        matched = [name for name in names if word in name or word in variants()[name].family]
    if matched:
        return matched
    if pattern in ambiguous_names:
        why, candidates = ambiguous_names[pattern]
        notice(f"'{pattern}' is ambiguous: {why}")
        return [name for name in names if name in candidates]
    return _of_aliases(pattern, _aliases_like(pattern, wild=wild)) or _nothing(pattern)


def _aliases_like(pattern: str, *, wild: bool) -> list[Alias]:
    """Return the aliases that a glob pattern matches, or that contain a word; a tag after the name does not matter."""
    text = pattern.removeprefix("timm/").lower()
    aliases = read_aliases(zoo().folders)[0].values()
    if wild:
        return [alias for alias in aliases if fnmatch.fnmatchcase(alias.alias.lower(), text)]
    whole = [alias for alias in aliases if alias.alias == text.partition(".")[0]]
    return whole or [alias for alias in aliases if text in alias.alias.lower()]


def _of_aliases(pattern: str, matched: Sequence[Alias]) -> list[str]:
    """Return the registry names of aliases, with a notice for each library."""
    if not matched:
        return []
    for library in dict.fromkeys(alias.library for alias in matched):
        here = [alias for alias in matched if alias.library == library]
        if len(here) == 1:
            notice(here[0].sentence)
            continue
        first = ", ".join(f"'{alias.alias}' is {alias.name}" for alias in here[:SHOWN])
        more = f" and {len(here) - SHOWN} more; `vitzoo show NAME` explains each" if len(here) > SHOWN else ""
        notice(f"'{pattern[:96]}' in {library}: {first}{more}")
    meant = {find(alias.name).variant.name for alias in matched}
    return [name for name in variants() if name in meant]


def _nothing(pattern: str) -> list[str]:
    """Raise InputError for a pattern that matches nothing, with the reason if it means another architecture."""
    reason = reason_by_name(pattern)
    if reason is not None:
        raise InputError(f"no variant matches '{pattern[:96]}', which is not a plain ViT: {reason}")
    word = "".join(c for c in pattern[:200] if c not in "*?[]")
    aliases = read_aliases(zoo().folders)[0]
    near = did_you_mean(word, [*variants(), *families()]) or did_you_mean(word, list(aliases))
    raise InputError(f"no variant matches '{pattern[:96]}'{near}", hint="see `vitzoo list`")
