"""Options shared by the commands: facts, --zoo, one flag per export format; and notes on how a name was resolved."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vit_zoo.cli.completion import complete_fact
from vit_zoo.cli.output import Output
from vit_zoo.errors import InputError, did_you_mean, shown

if TYPE_CHECKING:
    from vit_zoo.formats.format import Format

MODEL = """\b
MODEL is one of:
  vit_b16                       a registry name or an alias (see `vitzoo list`)
  vit_b16.augreg_in21k          a registry name with a tag: published weights
  FOLDER, FILE                  a model folder, a checkpoint file or a config file
  hf-hub:ORG/NAME[@REVISION]    a repository of the Hugging Face Hub
"""

SEED = click.IntRange(0, 2**63 - 1)  # seeds that torch takes

STATED = f"{__name__}.stated"  # the key under which options that state facts are kept until --set is read
CHECKPOINT_FACTS = ("grid", "resize", "prefix", "problem_type")  # facts about a checkpoint that are not fields of the spec


def facts(command: Any) -> Any:
    """Add --set FIELD=VALUE, repeatable, and --head FILE, and pass the values to the command as the mapping `facts`."""
    with_head = click.option(
        "--head", metavar="FILE", expose_value=False, is_eager=True, callback=_head,
        help="Read the linear head from FILE, for a checkpoint without one.",
    )(command)  # fmt: skip
    return click.option(
        "--set", "facts", multiple=True, metavar="FIELD=VALUE", callback=_facts, shell_complete=complete_fact,
        help="Set a field of the spec: an override, or a fact that the checkpoint does not contain. Repeatable.",
    )(with_head)  # fmt: skip


def _head(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta.setdefault(STATED, {})["head"] = value


def description(command: Any) -> Any:
    """Add --labels, --preprocess, and the fields that modify it; they are passed on in the mapping `facts`."""
    text = "Names of the classes: a text file with one in each line, JSON (id2label), or a list."
    return _stated_option("labels", "FILE|A,B,C", click.Path(), str, text)(_preprocess_options(command))


def preparation(command: Callable[..., None]) -> Any:
    """Add --preprocess and the fields that modify it; what they state is passed to the command as `preprocess`."""

    @functools.wraps(command)
    def decorated(*args: Any, **options: Any) -> None:
        command(*args, preprocess=_stated(click.get_current_context()).get("preprocess"), **options)

    return _preprocess_options(decorated)


def _preprocess_options(command: Any) -> Any:
    interpolations = click.Choice(["bilinear", "bicubic"])
    for flag, metavar, kind, parse, text in (
        ("interpolation", None, interpolations, str, "How images are resized."),
        ("crop", "SHARE|none", click.STRING, _crop, "Share of the resized image that the crop keeps (timm's crop_pct), or none."),
        ("size", "SIZE", click.STRING, _sides, "Size of the prepared images, N or HxW; it must be the model's."),
        ("std", "NUMBERS", click.STRING, _numbers, "Divide by this, for values of 0 to 1: a number, or one per channel."),
        ("mean", "NUMBERS", click.STRING, _numbers, "Subtract this, for values of 0 to 1: a number, or one per channel."),
        (
            "preprocess",
            "NAME|FILE",
            click.Path(),
            str,
            "How images are prepared: a preset (imagenet, half, clip, ...), a model, or a file.",
        ),
    ):
        command = _stated_option(flag, metavar, kind, parse, text)(command)
    return command


def _stated_option(flag: str, metavar: str | None, kind: Any, parse: Callable[[str], Any], text: str) -> Any:
    return click.option(
        f"--{flag}", metavar=metavar, type=kind, expose_value=False, is_eager=True, callback=_stating(parse), help=text
    )


def _stating(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """Return the callback of an option that states a fact, whose text `parse` reads."""

    def keep(context: click.Context, parameter: click.Parameter, text: str | None) -> None:
        if text is not None:
            context.meta.setdefault(STATED, {})[parameter.name] = parse(text)

    return keep


def _crop(text: str) -> float | str:
    try:
        return text if text == "none" else float(text)
    except ValueError:
        raise click.BadParameter(f"expected a share above 0 and at most 1, or none, got {shown(text)}") from None


def _sides(text: str) -> int | list[int]:
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text):
        raise click.BadParameter(f"expected N or HxW, got {shown(text)}")
    sides = [int(side) for side in text.split("x")]
    return sides if len(sides) == 2 else sides[0]


def _numbers(text: str) -> float | list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected a number, or one per channel as in 0.5,0.5,0.5; got {shown(text)}") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _stated(context: click.Context) -> dict[str, Any]:
    """Return the facts that options other than --set state, with the fields of the preprocessing in one mapping."""
    stated = dict(context.meta.get(STATED, {}))
    fields = {name: stated.pop(name) for name in ("mean", "std", "size", "crop", "interpolation") if name in stated}
    if fields:
        named = stated.get("preprocess")
        stated["preprocess"] = fields if named is None else {"extends": named, **fields}
    return stated


def _facts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for item in () if context.resilient_parsing else values:  # values are not needed to complete the next word
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected FIELD=VALUE, got {shown(item)}")
        if name in facts:
            raise click.BadParameter(f"'{name[:96]}' is set twice")
        value = _value(text)
        facts[name] = value if name != "prefix" or isinstance(value, str) else text  # the name of a list's item is a number
    return {**(_parsed(facts) if facts else {}), **_stated(context)}


def _parsed(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the values of --set as the types of their fields."""
    from vit_zoo.loading.facts import parsed
    from vit_zoo.model.spec import ViTSpec

    fields = [*ViTSpec.model_fields, *CHECKPOINT_FACTS]
    for name in facts:
        if name not in fields:
            raise click.BadParameter(f"unknown field '{name[:96]}'{did_you_mean(name, fields)}")
    try:
        return parsed(facts)
    except InputError as error:
        raise click.BadParameter(error.message) from None


class FormatsCommand(click.Command):
    """A command with a flag --NAME for each row of FORMATS; it receives the chosen names as the list `formats`.

    The table is imported only when the command runs, so that other commands start faster. `graphs=False` leaves out ONNX.
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
    """Add --zoo DIR, repeatable: folders of the user's zoo files, in use while the command runs."""
    return click.option(
        "--zoo", multiple=True, metavar="DIR", expose_value=False, callback=_zoo, is_eager=True,
        help="Also read your own zoo files in DIR, in addition to the folder VITZOO_PATH. Repeatable.",
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
    """Parse a number, `true`, `false`, or a list such as `224,384`; return any other text unchanged."""
    import tomllib

    for form in (text, f"[{text}]"):
        try:
            match tomllib.loads(f"value = {form}"):
                case {"value": int() | float() | str() | [_, *_] as value, **more} if not more:
                    return value
        except (ValueError, RecursionError):  # not TOML, or an integer of thousands of digits
            continue
    return text


def random_weights(command: Any) -> Any:
    """Add --random and --seed."""
    seed = click.option("--seed", type=SEED, metavar="INTEGER", help="Seed for the random weights (default: 0).")
    random = click.option("--random", is_flag=True, help="Use random weights of a registry name or a config file.")
    return random(seed(command))


def note_name(model: str | None, output: Output, *, as_architecture: bool = True) -> None:
    """Warn where a name is an alias or has another form.

    Where it does not stand for an architecture, what its weights are is told when they are found.
    """
    if model is None:
        return
    from vit_zoo.loading.locator import RegistryName, TaggedName, parse_locator

    match parse_locator(model, names_first=as_architecture):
        case RegistryName(named=named) | TaggedName(named=named) if named.alias is not None:
            if as_architecture:
                output.warn(named.alias.sentence)
        case RegistryName(named=named) if named.variant.name != model:
            output.warn(f"'{model}' is {named.variant.name}")


def run_limits(command: Any) -> Any:
    """Add --time-limit and --memory-limit."""
    return limits(
        command,
        "ONNX only: time that opening and running the file may take in all (default: 15, and more by its size).",
        "ONNX only: memory that running the file may take (default: by its size and the batch).",
    )


def batch_limits(command: Any) -> Any:
    """Add --batch, --time-limit and --memory-limit, for commands that run a file on batches without end."""
    batch = click.option(
        "--batch", type=click.IntRange(1), metavar="INTEGER", help="Number of images that are run at once (default: 8)."
    )
    return limits(
        batch(command),
        "Time that opening the file, or one batch, may take (default: 15, and more by its size).",
        "Memory that each process that runs the file may take (default: by its size and the batch).",
    )


def limits(command: Any, time: str, memory: str) -> Any:
    """Add --time-limit and --memory-limit with these help texts."""
    limited = click.option("--memory-limit", type=float, metavar="GB", help=memory)(command)
    return click.option("--time-limit", type=float, metavar="SECONDS", help=time)(limited)


def fast_crop(command: Any) -> Any:
    """Add --fast-crop."""
    return click.option(
        "--fast-crop", is_flag=True,
        help="Resize only what the crop keeps: a fifth less time for a photo, and single pixels that differ by one level of 255.",
    )(command)  # fmt: skip


def engine_options(command: Any) -> Any:
    """Add --workers, --engine and --address, for commands that run a file on many images."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1, 1024),
        metavar="INTEGER",
        help="Number of images that are decoded and run at the same time (default: one for each core).",
    )
    address = click.option(
        "--address", metavar="HOST:PORT", help="Address of the Ray cluster (default: RAY_ADDRESS, or a new one on this machine)."
    )
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="What runs the workers: the cores of this machine, or a Ray cluster.",
    )
    return workers(engine(address(command)))
