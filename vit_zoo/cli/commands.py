"""Commands of `vitzoo`. They import heavy modules only when they run, so that `vitzoo list` starts fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo import __version__
from vit_zoo.cli.bench_command import bench
from vit_zoo.cli.completion import TARGETS, complete_model, complete_name, complete_sort, script, words
from vit_zoo.cli.embed_command import embed
from vit_zoo.cli.evaluate_command import evaluate
from vit_zoo.cli.export_commands import export, verify
from vit_zoo.cli.hub_commands import publish, pull
from vit_zoo.cli.options import MODEL, SEED, description, facts, note_name, random_weights, zoo
from vit_zoo.cli.output import Output, with_output
from vit_zoo.cli.predict_command import predict
from vit_zoo.cli.probe_command import probe
from vit_zoo.cli.selfcheck_command import selfcheck
from vit_zoo.cli.text import config_text, pairs
from vit_zoo.errors import InputError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="vitzoo")
def vitzoo() -> None:
    """A Vision Transformer zoo and export toolkit.

    Create or convert a model, export it to a file, and verify that the file computes the same function.

    \b
    vitzoo create vit_b16 && cd vit_b16 && vitzoo export --onnx
    """


@vitzoo.command(name="list")
@click.argument("patterns", nargs=-1, metavar="[GLOB|WORD]...", shell_complete=complete_name)
@click.option("-l", "--long", is_flag=True, help="Print a table with image and patch size, parameters, GMACs.")
@click.option("--pretrained", is_flag=True, help="List the published weights, with top-1 accuracy, licence and repository.")
@click.option("--where", metavar="CONDITION", help="List only the models that satisfy CONDITION.")
@click.option(
    "--sort",
    metavar="FIELD",
    shell_complete=complete_sort,
    help="Sort by FIELD, which CONDITION may contain; -FIELD: descending.",
)
@zoo
@with_output
def list_(
    patterns: tuple[str, ...], long: bool, pretrained: bool, where: str | None, sort: str | None, output: Output
) -> None:  # fmt: skip
    """List the models of the registry, or their published weights.

    Without arguments, models are listed by family, with what each family is good for and the licences of its weights.
    Otherwise one name per line: '*' lists all.

    Only the names that match GLOB, or that contain WORD, are listed. Where none does, names of other libraries are searched,
    and a note says what they are here. With --long or --pretrained and --json, each line is an object with all its fields.

    CONDITION compares fields of the spec, params, gmacs, tokens, family or name with < <= > >= == !=, combined with and,
    or, not and parentheses. Numbers may end in K, M or G. With --pretrained, top1 (ImageNet-1k accuracy in percent, as
    reported), licence, repo and dialect are fields too.

    \b
    vitzoo list
    vitzoo list 'vit_b*' --long
    vitzoo list --where 'params<30M and patch_size==16' --sort gmacs
    vitzoo list --pretrained --where 'top1>80 and params<30M' --sort -top1
    """
    from vit_zoo.registry.models import list_models, row_of_name, sort_names

    names = list_models(list(patterns) or "*", where=where, pretrained=pretrained)
    if sort is not None:
        names = sort_names(names, sort)

    def text() -> str:
        from vit_zoo.cli.listing import overview, table_of

        if not (patterns or long or pretrained or where or sort):
            return overview()
        return table_of(names, long=long, pretrained=pretrained) if long or pretrained else "\n".join(names)

    output.result([row_of_name(name) for name in names] if (long or pretrained) and output.json else names, text)


@vitzoo.command()
@click.argument("locator", metavar="NAME|FILE|FOLDER", shell_complete=complete_model)
@click.option("--code", is_flag=True, help="Print the preprocessing as a Python program for numpy, which runs an ONNX file too.")
@click.option("--graph", is_flag=True, help="Print the graph of an ONNX file, one line for each operator.")
@facts
@zoo
@with_output
def show(locator: str, code: bool, graph: bool, facts: dict[str, Any], output: Output) -> None:
    """Describe a model name, a config, a checkpoint, an exported file, a folder of them, or a parity report.

    Prints the fields of the model with the origin of each, its cost, preprocessing, licence, and published weights. Of an
    ONNX file of any tool: inputs, outputs, opset, operators, precision, size, and the result of its parity check. Files are
    only read: no code in them is executed.

    \b
    vitzoo show vit_b16
    vitzoo show google/vit-base-patch16-224
    vitzoo show model.onnx
    vitzoo show model.onnx --code > predict.py
    vitzoo show model.onnx --graph
    """
    if code and graph:
        raise InputError("--code and --graph contradict each other")
    if graph and facts:
        raise InputError("--set does not apply to the graph of a file")
    if graph:
        from vit_zoo.cli.show_file import graph_of

        lines = graph_of(locator)
        output.result({"graph": lines}, lambda: "\n".join(lines))
        return
    note_name(locator, output)
    from vit_zoo.cli.show import overview

    shown = overview(locator, facts)
    if code and shown.code is None:
        raise InputError("its preprocessing is not known, so there is no code for it", where=locator)
    document = shown.document if shown.code is None else {**shown.document, "code": shown.code}
    output.result(document, lambda: str(shown.code).rstrip("\n") if code else shown.text)


@vitzoo.command()
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete_model)
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write (default: ./NAME).")
@click.option("--seed", type=SEED, default=0, show_default=True, metavar="INTEGER", help="Seed for the random weights.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show what would be written.")
@click.option("--force", is_flag=True, help="Replace the model in the folder, if there is one.")
@description
@facts
@zoo
@with_output
def create(name: str, out: Path | None, seed: int, dry_run: bool, force: bool, facts: dict[str, Any], output: Output) -> None:
    """Write a model with seeded random weights.

    The result is a folder with config.json and model.safetensors. CONFIG is a config.json or a TOML file.

    \b
    vitzoo create vit_b16 --set num_classes=10
    """
    note_name(name, output)
    from vit_zoo.cli.documents import CreateDocument
    from vit_zoo.loading.source import find_architecture

    config = find_architecture(name, **facts)
    folder = out if out is not None else Path(config.name)
    if not dry_run:
        from vit_zoo.files.folder import check_folder

        check_folder(folder, force=force)
        from vit_zoo.api import create as create_model
        from vit_zoo.api import save

        output.progress(f"initialising {config.spec.params:,} parameters")
        save(create_model(name, seed=seed, **facts), folder)
    verb = "would write" if dry_run else "wrote"
    lines = f"{verb} {folder}/: {config.name}, {config.spec.params:,} parameters, RANDOM WEIGHTS (seed {seed})"
    output.result(CreateDocument.of(folder, config, seed), lambda: f"{lines}\n{config_text(config)}" if dry_run else lines)


@vitzoo.command(epilog=MODEL)
@click.argument("src", metavar="MODEL", shell_complete=complete_model)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write, or folder, which gets a config file too."
)
@click.option(
    "--to",
    default="vitzoo",
    show_default=True,
    metavar="TARGET",
    shell_complete=words(*TARGETS),
    help="Library to write for; see above.",
)
@click.option(
    "--accept",
    multiple=True,
    metavar="FIELD",
    shell_complete=words("norm_eps", "act", "preprocess"),
    help="Accept the target's own value of norm_eps or act, whose effect on the outputs is measured, or its own rounding of "
    "crops (preprocess). Repeatable.",
)
@click.option("--allow-drop", multiple=True, metavar="GLOB", help="Leave out matching tensors, such as 'head.*'. Repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing file or model.")
@random_weights
@description
@facts
@zoo
@with_output
def convert(
    src: str, out: Path, to: str, accept: tuple[str, ...], allow_drop: tuple[str, ...], force: bool, random: bool,
    seed: int | None, facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Convert a checkpoint of any supported library for another one.

    TARGET is vitzoo, timm, hf, torchvision, vit-pytorch, dinov2, deit, mae, open_clip or google. Every tensor is accounted
    for, and what was written is read back and compared bit for bit.

    --set image_size=SIZE or patch_size=SIZE resizes the model with the method of its source library, or with the one that
    --set resize=RECIPE names.

    \b
    vitzoo convert B_16.npz -o vit_b16 --to hf
    vitzoo convert dinov2_vits14.pth -o dinov2.safetensors --to timm --set image_size=224
    """
    from vit_zoo.api import convert as convert_model
    from vit_zoo.cli.documents import ConvertDocument
    from vit_zoo.loading.convert import summary_lines

    note_name(src, output, as_architecture=random)
    output.progress(f"converting {src}")
    done = convert_model(src, out, to, accept=accept, allow_drop=allow_drop, force=force, random=random, seed=seed, **facts)
    if done.config.random_text:
        output.warn(f"{done.config.name} has {done.config.random_text}")
    output.result(ConvertDocument.of(done), lambda: "\n".join(summary_lines(done)))


for command in (export, verify, selfcheck, predict, embed, evaluate, probe, bench, publish, pull):
    vitzoo.add_command(command)


@vitzoo.command()
@with_output
def doctor(output: Output) -> None:
    """Show versions and what this installation can do.

    Prints the versions of the packages in use, what the CPU supports for int8, which commands are ready to use, and whether
    another project is installed that is taken for this one: `vit-zoo` on the package index is not `vitzoo`.

    \b
    vitzoo doctor
    """
    from vit_zoo.cli.doctor import doctor_report

    report = doctor_report()
    if "conflict" in report:
        output.warn(f"warning: {report['conflict']}")
    output.result(report, lambda: pairs({name: str(value) for name, value in report.items() if name != "conflict"}))


@vitzoo.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    Names of models, tags, targets, fields with their values, and files are completed. Add the line for your shell to its
    start-up file.

    \b
    eval "$(vitzoo completion bash)"                # ~/.bashrc
    eval "$(vitzoo completion zsh)"                 # ~/.zshrc, after compinit
    vitzoo completion fish | source                 # ~/.config/fish/config.fish
    """
    click.echo(script(vitzoo, shell))
