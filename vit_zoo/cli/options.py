"""What the verbs that take a model share: the options for facts and for zoo files, and what a name means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_zoo.cli.output import Voice
from vit_zoo.errors import did_you_mean

if TYPE_CHECKING:
    from vit_zoo.formats.format import Format

MODEL = "MODEL is a registry name, one with a tag, a config file, a folder, a checkpoint file, or hf-hub:ORG/NAME[@REVISION]."

OF_THE_FILE = ("grid", "resize")  # facts of a checkpoint alone, beside the fields of the spec


def facts(command: Any) -> Any:
    """--set FIELD=VALUE, any number of times, as a mapping."""
    return click.option(
        "--set", "facts", multiple=True, metavar="FIELD=VALUE", callback=_facts,
        help="A field of the spec: an override, or a fact that a checkpoint cannot tell. Repeatable.",
    )(command)  # fmt: skip


def _facts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in values:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{item}' is not FIELD=VALUE")
        if name in found:
            raise click.BadParameter(f"'{name}' is set twice")
        found[name] = _value(text)
    if found:
        from vit_zoo.model.spec import ViTSpec

        fields = [*ViTSpec.model_fields, *OF_THE_FILE]
        for name in found:
            if name not in fields:
                raise click.BadParameter(f"unknown field '{name[:96]}'{did_you_mean(name, fields)}")
    return found


class FormatsCommand(click.Command):
    """A command with a flag for each row of FORMATS, --NAME; the names that are given reach it as the list `formats`.

    The table is imported when the command runs, so that others start without it. `graphs=False` leaves out ONNX.
    """

    def __init__(self, *args: Any, flag_help: str, graphs: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.flag_help, self.graphs = flag_help, graphs

    def _rows(self) -> list[Format]:
        from vit_zoo.formats import FORMATS

        return [row for row in FORMATS.values() if self.graphs or not row.graph]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        flags = [
            click.Option([f"--{row.name}"], is_flag=True, help=self.flag_help.format(title=row.title, suffix=row.suffix))
            for row in self._rows()
        ]
        return [*flags, *super().get_params(ctx)]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.params["formats"] = [row.name for row in self._rows() if ctx.params.pop(row.name)]
        return super().invoke(ctx)


def zoo(command: Any) -> Any:
    """--zoo DIR, any number of times: users' zoo files, known while the command runs."""
    return click.option(
        "--zoo", multiple=True, metavar="DIR", expose_value=False, callback=_zoo, is_eager=True,
        help="A folder of your own zoo files, beside that of VITZOO_PATH. Repeatable.",
    )(command)  # fmt: skip


def _zoo(context: click.Context, parameter: click.Parameter, folders: tuple[str, ...]) -> None:
    if not folders or context.resilient_parsing:
        return
    from vit_zoo.registry.catalog import forget_folder
    from vit_zoo.registry.models import use_folder

    for folder in folders:
        use_folder(folder)
        context.call_on_close(lambda folder=folder: forget_folder(folder))


def _value(text: str) -> Any:
    """A number, true, false, `224,384` as a pair, or else a word."""
    import tomllib

    for form in (text, f"[{text}]"):
        try:
            match tomllib.loads(f"value = {form}"):
                case {"value": int() | float() | str() | [_, *_] as value, **more} if not more:
                    return value
        except (ValueError, RecursionError):  # of TOML, and integers of thousands of digits
            continue
    return text


def note_name(model: str | None, voice: Voice) -> None:
    """What a name means, where that is not plain: a folder has it too, it is another library's, or not in canonical form."""
    if model is None:
        return
    from vit_zoo.loading.locator import RegistryName, TaggedName, parse_locator

    match parse_locator(model):
        case RegistryName(named=named) | TaggedName(named=named) if named.alias is not None:
            voice.warn(named.alias.sentence)
        case RegistryName(named=named):
            if named.variant.name != model:
                voice.warn(f"'{model}' is {named.variant.name}")
            if Path(model, "config.json").is_file():
                voice.warn(f"'{model}' is the registry's name; for the folder write ./{model}")
