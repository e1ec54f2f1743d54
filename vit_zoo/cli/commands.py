"""The verbs. Heavy imports stay inside them: `vitzoo list` costs little more than click."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo import __version__
from vit_zoo.cli.hub_commands import publish, pull
from vit_zoo.cli.options import MODEL, FormatsCommand, facts, note_name, zoo
from vit_zoo.cli.output import Voice, pairs, speaking, table
from vit_zoo.errors import CheckFailed, InputError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="vitzoo")
def vitzoo() -> None:
    """A Vision Transformer zoo and export toolkit.

    \b
    vitzoo create vit_b16 && cd vit_b16 && vitzoo export --onnx
    """


@vitzoo.command(name="list")
@click.argument("patterns", nargs=-1, metavar="[GLOB]...")
@click.option("-l", "--long", is_flag=True, help="With sizes: image, patch, parameters, GMACs.")
@click.option("--where", metavar="CONDITION", help="On fields of the spec, params, gmacs, tokens, family, name.")
@click.option("--sort", metavar="FIELD", help="By a field that --where knows; -FIELD for the largest first.")
@zoo
@speaking
def list_(patterns: tuple[str, ...], long: bool, where: str | None, sort: str | None, voice: Voice) -> None:
    """List the names of the registry.

    \b
    vitzoo list 'vit_b*' --long
    vitzoo list --where 'params<30M and patch_size==16' --sort gmacs
    """
    from vit_zoo.registry.catalog import variants
    from vit_zoo.registry.configs import row_of
    from vit_zoo.registry.models import list_models, sort_names

    names = list_models(list(patterns) or "*", where=where)
    if sort is not None:
        names = sort_names(names, sort)
    rows = [variants()[name] for name in names]

    def text() -> str:
        if not long:
            return "\n".join(names)
        stated = ("image_size", "patch_size", "params", "gmacs")
        cells = []
        for row in rows:
            known = {**row.fields, **row.row}
            if not set(stated) <= set(known):  # a user's row need not say what it costs
                known = row_of(row)
            image, patch, params, gmacs = (known[field] for field in stated)
            cells.append((row.name, _side(image), _side(patch), f"{params:,}", f"{gmacs:.3f}"))
        return table([("name", "image", "patch", "parameters", "GMACs"), *cells])

    voice.result([row_of(row) for row in rows] if long and voice.json else names, text)


def _side(size: Any) -> str:
    """224, or 224x160."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return str(height) if height == width else f"{height}x{width}"


@vitzoo.command()
@click.argument("what", metavar="NAME|FILE|FOLDER")
@facts
@zoo
@speaking
def show(what: str, facts: dict[str, Any], voice: Voice) -> None:
    """Show what a name, a config, a checkpoint or an exported file is. Nothing in a file is run.

    \b
    vitzoo show vit_b16
    vitzoo show google/vit-base-patch16-224
    vitzoo show model.onnx
    """
    note_name(what, voice)
    from vit_zoo.cli.show import shown

    document, text = shown(what, facts)
    voice.result(document, lambda: text)


@vitzoo.command()
@click.argument("name", metavar="NAME|CONFIG")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder to write; ./NAME by default.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the random weights.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show what would be.")
@click.option("--force", is_flag=True, help="Replace a model that is there.")
@facts
@zoo
@speaking
def create(name: str, out: Path | None, seed: int, dry_run: bool, force: bool, facts: dict[str, Any], voice: Voice) -> None:
    """Write a model with seeded random weights: config.json and model.safetensors.

    \b
    vitzoo create vit_b16 --set num_classes=10
    """
    note_name(name, voice)
    from vit_zoo.cli.documents import CreateDocument
    from vit_zoo.loading.source import find_architecture

    config = find_architecture(name, **facts)
    folder = out if out is not None else Path(config.name)
    if not dry_run:
        from vit_zoo.files.atomic import check_folder

        check_folder(folder, force=force)
        from vit_zoo.api import create as create_model
        from vit_zoo.api import save

        voice.progress(f"making {config.spec.params:,} random parameters")
        save(create_model(name, seed=seed, **facts), folder)
    verb = "would write" if dry_run else "wrote"
    lines = f"{verb} {folder}/: {config.name}, {config.spec.params:,} parameters, RANDOM WEIGHTS (seed {seed})"
    voice.result(CreateDocument.of(folder, config, seed), lambda: f"{lines}\n{_summary(config)}" if dry_run else lines)


def _summary(config: Any) -> str:
    spec = config.spec
    return pairs({
        "image": f"{spec.image_size[0]}x{spec.image_size[1]}, {spec.channels} channels",
        "patch": f"{spec.patch_size[0]}x{spec.patch_size[1]}, {spec.tokens} tokens",
        "size": f"{spec.dim} wide, {spec.depth} deep, {spec.heads} heads of {spec.dim_head}, MLP {spec.mlp_dim}",
        "cost": f"{spec.macs / 1e9:.3f} GMACs an image",
        "output": f"{spec.output}, {spec.num_classes} classes" if spec.num_classes else spec.output,
    })  # fmt: skip


@vitzoo.command(epilog=MODEL)
@click.argument("src")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="A file, or a folder, which gets a config too.")
@click.option("--to", default="vitzoo", show_default=True, metavar="TARGET", help="Whose names and layout; see below.")
@click.option("--accept", multiple=True, metavar="FIELD", help="norm_eps or act: may be the target's own. Repeatable.")
@click.option("--allow-drop", multiple=True, metavar="GLOB", help="Tensors that may be left out, such as 'head.*'. Repeatable.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@facts
@zoo
@speaking
def convert(
    src: str, out: Path, to: str, accept: tuple[str, ...], allow_drop: tuple[str, ...], force: bool, facts: dict[str, Any],
    voice: Voice,
) -> None:  # fmt: skip
    """Write a checkpoint of any known library for another, every tensor accounted for.

    TARGET is vitzoo, timm, hf, torchvision, vit-pytorch, dinov2, deit, mae, open_clip or google. With --set image_size or
    patch_size the model is resized, by the recipe of its source or that of --set resize=RECIPE.

    \b
    vitzoo convert B_16.npz -o vit_b16 --to hf
    vitzoo convert dinov2_vits14.pth -o dinov2.safetensors --to timm --set image_size=224
    """
    from vit_zoo.api import convert as convert_model
    from vit_zoo.cli.documents import ConvertDocument
    from vit_zoo.loading.convert import lines

    note_name(src, voice)
    voice.progress(f"converting {src}")
    done = convert_model(src, out, to, accept=accept, allow_drop=allow_drop, force=force, **facts)
    voice.result(ConvertDocument.of(done), lambda: "\n".join(lines(done)))


VERIFY: dict[str, Any] = {"on": True, "off": False}  # the other choices are efforts


@vitzoo.command(cls=FormatsCommand, flag_help="Write the {title} NAME{suffix}.", epilog=MODEL)
@click.argument("model", required=False)
@click.option("-o", "--out", type=click.Path(), help="A file, or a folder; the current one by default.")
@click.option("--opset", type=int, help="Of the ONNX file, 17 to 25; 20 by default.")
@click.option("--inline", "placement", flag_value="inline", help="ONNX weights in the file (the default below 2 GiB).")
@click.option("--external", "placement", flag_value="external", help="ONNX weights in NAME.onnx_data beside it.")
@click.option("--shared", "placement", flag_value="shared", help="ONNX weights stay in the folder's model.safetensors.")
@click.option(
    "--outputs",
    metavar="NAMES",
    help="Comma-separated: logits, probabilities, pooler_output, last_hidden_state, block.N, attn.N, block.N.map.",
)
@click.option("--dynamic", type=click.Choice(["hw"]), help="ONNX: any height and width that the patch divides.")
@click.option("--include", multiple=True, metavar="PART", help="softmax, preprocess or preprocess-exact. Repeatable.")
@click.option(
    "--verify", type=click.Choice(["on", "quick", "full", "off"]), default="on", show_default=True, help="Check the file on disk."
)
@click.option("--fp16", is_flag=True, help="ONNX: weights and products in float16, the rest in float32.")
@click.option("--bf16", is_flag=True, help="ONNX: weights stored in bfloat16, computed in float32.")
@click.option("--int8", type=click.Choice(["static", "dynamic", "weights"]), help="ONNX: rounded to 8 bits, as said above.")
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="Images that int8 ranges are taken from.")
@click.option("--evaluate", type=click.Path(path_type=Path), metavar="DIR", help="Images to judge int8 by.")
@click.option("--min-agreement", type=float, metavar="SHARE", help="Of images with the model's own first class, 0 to 1.")
@click.option("--min-accuracy", type=float, metavar="SHARE", help="Of images that are right; their folders name the classes.")
@click.option("--weights", metavar="SRC", help="Weights for a registry name: a folder or a checkpoint file.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of a registry name's random weights; 0 by default.")
@facts
@zoo
@speaking
def export(
    model: str | None, formats: list[str], out: str | None, opset: int | None, placement: Any,
    outputs: str | None, include: tuple[str, ...], dynamic: Any, verify: str,
    fp16: bool, bf16: bool, int8: str | None, calibrate: Path | None, evaluate: Path | None,
    min_agreement: float | None, min_accuracy: float | None, weights: str | None, seed: int | None, facts: dict[str, Any],
    voice: Voice,
) -> None:  # fmt: skip
    """Export a model (the current folder's by default), and verify every file before it gets its name.

    --int8 static takes each layer's range from --calibrate, so that an image's answer does not depend on its batch mates;
    dynamic takes that of the batch; weights rounds nothing else. With --min-agreement or --min-accuracy, as few layers as
    that takes stay in float, or the export fails.

    --dynamic hw interpolates learned positions in the graph, by the recipe of their source or that of --set resize=RECIPE.

    --include preprocess makes an ONNX file take whole images, uint8 [batch, height, width, channels], and prepare them within
    2 of 255 levels of Pillow; preprocess-exact has no pixel off, and takes longer. softmax gives probabilities.

    \b
    vitzoo export --onnx
    vitzoo export checkpoint.safetensors --onnx --torchscript --pt2
    vitzoo export --onnx --int8 static --calibrate photos --min-agreement 0.99
    """
    if not formats:
        from vit_zoo.formats import FORMATS

        raise InputError(f"name a format: {', '.join(f'--{name}' for name in FORMATS)}")
    precisions: list[Any] = [name for name, wanted in (("fp16", fp16), ("bf16", bf16), (f"int8-{int8}", int8)) if wanted]
    if len(precisions) > 1:
        raise InputError("one of --fp16, --bf16 and --int8")
    note_name(model, voice)
    from vit_zoo.api import export as export_model
    from vit_zoo.cli.export_document import ExportDocument

    done = export_model(
        "." if model is None else model, formats, out=out, opset=opset, placement=placement,
        outputs=[] if outputs is None else outputs.split(","), include=include, dynamic=dynamic,
        verify=VERIFY.get(verify, verify), weights=weights, seed=seed,
        precision=precisions[0] if precisions else "fp32", calibrate=calibrate, evaluate=evaluate,
        min_agreement=min_agreement, min_accuracy=min_accuracy, note=voice.progress, **facts,
    )  # fmt: skip
    if done[0].config.random_seed is not None:
        _warn_random(done[0].config, voice)

    def text() -> str:
        lines = []
        for item in done:
            judged = "" if item.judgement is None else f", but judged: {item.judgement}"
            verdict = f"not verified{judged}" if item.report is None else f"verified: {item.report.summary()}"
            beside = "" if item.data is None else f" and {item.data.name} ({_size(item.data)})"
            lines.append(f"{item.path} ({_size(item.path)}){beside}, {verdict}")
        return "\n".join(lines)

    voice.result([ExportDocument.of(item) for item in done], text)


def _warn_random(config: Any, voice: Voice) -> None:
    from vit_zoo.registry.lookup import is_name, tags_of

    published = list(tags_of(config.name).values()) if is_name(config.name) else []
    which = f", such as {published[0].address} (`vitzoo show {config.name}`)" if published else ""
    voice.warn(f"RANDOM WEIGHTS (seed {config.random_seed}): --weights SRC of `vitzoo export` brings trained ones{which}")


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


@vitzoo.command(epilog=MODEL)
@click.argument("artifact")
@click.option(
    "--against", metavar="MODEL", help="The reference, or another artifact; by default the spec and weights in the file."
)
@click.option("--quick", "effort", flag_value="quick", help="Three images, no float64, the optimiser on only.")
@click.option("--full", "effort", flag_value="full", help="More images and batches, and every inner value.")
@click.option("--fixed", metavar="AXES", help="Axes declared free but used at one size: channels, height, width.")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="Real images to measure an int8 file on.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the error behind each block into this file, .png or .svg.")
@facts
@zoo
@speaking
def verify(
    artifact: str, against: str | None, effort: Any, fixed: str | None, pictures: Path | None, plot: Path | None,
    facts: dict[str, Any], voice: Voice,
) -> None:  # fmt: skip
    """Check that an exported file, any tool's, computes its model, or that two models or files compute the same.

    Exit code 3 if not, with the first block and operation that part. Writes ARTIFACT.parity.json.

    \b
    vitzoo verify vit_b16.onnx --against ./vit_b16
    vitzoo verify theirs.onnx --against checkpoint.safetensors --fixed height,width
    """
    from vit_zoo.api import verify as verify_artifact
    from vit_zoo.cli.show import evidence

    if facts and against is None:
        raise InputError("--set states facts of the --against model")
    note_name(against, voice)
    if plot is not None:
        from vit_zoo.parity.plot import check_plot

        check_plot(plot)
    voice.progress(f"checking {artifact}")
    axes = [] if fixed is None else fixed.split(",")
    report = verify_artifact(
        artifact, against, effort=effort or "default", fixed=axes, blocks=plot is not None, pictures=pictures, **facts
    )
    if plot is not None:
        from vit_zoo.parity.plot import draw

        draw(report, plot)
    for warning in report.warnings:
        voice.warn(f"warning: {artifact}: {warning}")
    if not report.ok:
        if not voice.json:  # where one document is wanted, it is the error's
            voice.result(None, lambda: evidence(report))
        hint = None if report.sha256 is None else f"see {Path(artifact).name}.parity.json"
        cause = f"does not compute {report.reference}: {report.summary()}"
        raise CheckFailed(cause, where=artifact, hint=hint, details={"report": report.model_dump(mode="json")})
    verb = "approximates" if report.verdict == "approximate" else "computes"
    precision = "" if report.precision == "fp32" else f" in {report.precision}"
    text = f"{artifact} {verb} {report.reference}{precision}: {report.summary()}"
    voice.result(report, lambda: f"{evidence(report)}\n\n{text}" if voice.verbose or effort == "full" else text)


@vitzoo.command(epilog=MODEL + " Or an exported ONNX file, which needs neither torch nor a side file.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="How many classes to name.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Of onnxruntime.")
@zoo
@speaking
def predict(model: str, images: tuple[Path, ...], top: int, threads: int | None, voice: Voice) -> None:
    """Classify images.

    \b
    vitzoo predict vit_digits.onnx digit.png --top 3
    """
    from vit_zoo.cli.documents import PredictDocument
    from vit_zoo.inference.predict import classify

    note_name(model, voice)
    config, found = classify(model, images, top=top, threads=threads)
    if config.random_seed is not None:
        _warn_random(config, voice)

    def text() -> str:
        rows = [
            (p.file, "  ".join(f"{name} {100 * x:.1f} %" for name, x in zip(p.labels, p.probabilities, strict=True)))
            for p in found
        ]
        return table(rows)

    voice.result([PredictDocument.of(prediction) for prediction in found], text)


vitzoo.add_command(publish)
vitzoo.add_command(pull)


@vitzoo.command()
@speaking
def doctor(voice: Voice) -> None:
    """Show versions, and what this installation can do.

    \b
    vitzoo doctor
    """
    from vit_zoo.cli.show import checkup

    found = checkup()
    voice.result(found, lambda: pairs({name: str(value) for name, value in found.items()}))


@vitzoo.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(vitzoo completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(vitzoo, {}, "vitzoo", "_VITZOO_COMPLETE").source())
