"""Completion of names, tags, fields, targets and files in the shell; `vitzoo completion SHELL` prints the script that calls it.

Only the zoo's files are read: neither torch nor numpy is imported, so that a completion takes a fraction of a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

TARGETS = ("vitzoo", "timm", "hf", "torchvision", "vit-pytorch", "dinov2", "deit", "mae", "open_clip", "google")  # of convert
FACTS = ("grid", "prefix")  # that have no list of values
# bash adds a space after a word that is complete, which FIELD= is not
BASH_RETURN = "\n    return 0\n"
BASH_WITHOUT_SPACE = "\n    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n    return 0\n"

Completed = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def script(command: click.Command, shell: str) -> str:
    """Return the completion script for a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    source = kind(command, {}, "vitzoo", "_VITZOO_COMPLETE").source()
    return source.replace(BASH_RETURN, BASH_WITHOUT_SPACE) if shell == "bash" else source


def complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a registry name, a name with a tag after its dot, or where neither matches, a name of another library."""
    return list(_names(incomplete))


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a name or a path. The shell lists files only where no name matches."""
    # the item for files comes first: the script of bash drops the items before it
    return [CompletionItem(incomplete, type="file"), *_names(incomplete)]


def complete_fact(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a field of the spec, with its value where the values are words."""
    from vit_zoo.model.resize_recipes import RECIPES

    items = [f"{name}={value}" for name, values in _fields().items() for value in values or ("",)]
    items += [*(f"resize={name}" for name in RECIPES), *(f"{name}=" for name in FACTS)]
    items += [f"problem_type={kind}_classification" for kind in ("single_label", "multi_label")] + ["problem_type=regression"]
    return _starting(items, incomplete)


def complete_sort(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a field to sort by; not -FIELD, because click takes a word that begins with a hyphen for an option."""
    from vit_zoo.registry.configs import TAG_FIELDS

    tag_fields = TAG_FIELDS if context.params.get("pretrained") else ()
    return _starting(("name", "family", *tag_fields, "params", "gmacs", "tokens", *_fields()), incomplete)


def words(*choices: str) -> Completed:
    """Return the completion of one of several words, or of the last one of a list with commas."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{choice}") for choice in choices if choice.startswith(last)]

    return complete


def _names(incomplete: str) -> Iterator[CompletionItem]:
    from vit_zoo.errors import InputError
    from vit_zoo.registry.aliases import read_aliases
    from vit_zoo.registry.catalog import families, variants, zoo
    from vit_zoo.registry.lookup import tags_of

    try:
        known = variants()
        if "." in incomplete:
            name = incomplete.partition(".")[0]
            tags = tags_of(name).values() if name in known else ()
            yield from (
                CompletionItem(t.full_name, help=t.reported or t.licence) for t in tags if t.full_name.startswith(incomplete)
            )
            return
        titles = {name: family.about.get("title", name) for name, family in families().items()}
        names = [name for name in known if name.startswith(incomplete)]
        yield from (CompletionItem(name, help=titles.get(known[name].family)) for name in names)
        if not names and incomplete:
            aliases = read_aliases(zoo().folders)[0].values()
            yield from (CompletionItem(a.alias, help=f"{a.name} here") for a in aliases if a.alias.startswith(incomplete))
    except InputError:  # a damaged file of the user's zoo: the command itself reports it
        return


def _fields() -> dict[str, list[str]]:
    """Return the fields of the spec with their values, where these are words, from the schema of zoo files."""
    from vit_zoo.registry.catalog import zoo_folder

    schema = json.loads((zoo_folder() / "schema.json").read_text(encoding="utf-8"))
    return {name: _values(field) for name, field in schema["$defs"]["Fields"]["properties"].items()}


def _values(field: dict[str, Any]) -> list[str]:
    if field.get("type") == "boolean":
        return ["true", "false"]
    values = [*field.get("enum", ()), *([field["const"]] if "const" in field else ())]
    return [str(value) for value in values] + [value for part in field.get("anyOf", ()) for value in _values(part)]


def _starting(items: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(item) for item in items if item.startswith(incomplete)]
