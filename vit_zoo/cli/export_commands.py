"""Commands `export` and `verify`: write exported files, and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.completion import complete_model, words
from vit_zoo.cli.next_steps import next_steps
from vit_zoo.cli.options import MODEL, FormatsCommand, description, facts, note_name, random_weights, run_limits, zoo
from vit_zoo.cli.output import Output, with_output
from vit_zoo.cli.text import export_text
from vit_zoo.errors import CheckFailed, InputError

VERIFY: dict[str, Any] = {"on": True, "off": False}  # the other choices are efforts


@click.command(cls=FormatsCommand, flag_help="Write the {title} NAME{suffix}.", epilog=MODEL)
@click.argument("model", required=False, shell_complete=complete_model)
@click.option("-o", "--out", type=click.Path(), help="File to write, or folder (default: the current one).")
@click.option(
    "--triton", type=click.Path(path_type=Path), metavar="DIR",
    help="ONNX only: write NAME/ with config.pbtxt, labels and 1/model.onnx to a model repository of Triton Inference Server.",
)  # fmt: skip
@click.option("--opset", type=int, help="ONNX only: opset version, 13 to 25 (default: 20); below 17 with core operators.")
@click.option(
    "--batch",
    type=int,
    metavar="N",
    help="ONNX only: take exactly N images at a time, with every dimension static (default: any).",
)
@click.option(
    "--operators",
    type=click.Choice(["all", "core"]),
    help="ONNX only: core decomposes what compilers for phones and NPUs lack, such as LayerNormalization and Gelu.",
)
@click.option("--inline", "placement", flag_value="inline", help="ONNX only: store weights in the file (default below 2 GiB).")
@click.option(
    "--external", "placement", flag_value="external", help="ONNX only: store weights in NAME.onnx_data next to the file."
)
@click.option(
    "--shared", "placement", flag_value="shared", help="ONNX only: refer to the weights in the folder's model.safetensors."
)
@click.option(
    "--outputs",
    metavar="NAMES",
    shell_complete=words("logits", "probabilities", "image_embeds", "pooler_output", "last_hidden_state", "block.", "attn."),
    help="Comma-separated outputs: logits, probabilities, image_embeds, pooler_output, last_hidden_state, block.N, attn.N, "
    "block.N.map; attn.* stands for all blocks (default: the model's own output).",
)
@click.option(
    "--dynamic",
    type=click.Choice(["hw", "patches"]),
    help="ONNX only. hw: accept images of any height and width that the patch size divides. patches: accept the patches of "
    "images of different sizes in one batch.",
)
@click.option(
    "--include",
    multiple=True,
    metavar="PART",
    shell_complete=words("softmax", "sigmoid", "preprocess", "preprocess-exact"),
    help="Include softmax, sigmoid or, ONNX only, preprocess or preprocess-exact. Repeatable.",
)
@click.option(
    "--verify",
    type=click.Choice(["on", "quick", "full", "off"]),
    default="on",
    show_default=True,
    help="How thoroughly to check each file on disk; off: not at all.",
)
@click.option(
    "--precision",
    metavar="NAMES",
    shell_complete=words("fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"),
    help="ONNX only: comma-separated precisions, one file for each: fp32, fp16, bf16, int8-static, int8-dynamic, int8-weights.",
)
@click.option("--fp16", is_flag=True, help="ONNX only: weights and matrix products in float16, the rest in float32.")
@click.option("--bf16", is_flag=True, help="ONNX only: weights stored in bfloat16, computation in float32.")
@click.option("--int8", type=click.Choice(["static", "dynamic", "weights"]), help="ONNX only: quantise to 8 bits; see above.")
@click.option(
    "--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="int8 only: images to calibrate the ranges with."
)
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="int8 only: images on which the file must be close to the model; with a minimum, the default is a quarter of "
    "--calibrate, held out.",
)
@click.option(
    "--min-agreement",
    type=float,
    metavar="SHARE",
    help="int8 only: minimum share of images (0 to 1) whose top class, or for features nearest neighbour, is the float model's.",
)
@click.option(
    "--min-accuracy",
    type=float,
    metavar="SHARE",
    help="int8 only: minimum top-1 accuracy (0 to 1); subfolders of the images name the classes.",
)
@click.option(
    "--min-cosine",
    type=float,
    metavar="COSINE",
    help="int8 only: minimum cosine of each image's outputs with the float model's, in place of the usual limits.",
)
@click.option(
    "--min-neighbours",
    type=float,
    metavar="SHARE",
    help="int8 only, for features: minimum share (0 to 1) of the 10 nearest neighbours of an image that stay, on average.",
)
@click.option("--force", is_flag=True, help="Replace files that hold another model or were written by another tool.")
@click.option(
    "--weights", metavar="SRC", shell_complete=complete_model, help="Weights for a registry name: a folder or a checkpoint file."
)
@click.option("--allow-drop", multiple=True, metavar="GLOB", help="Leave out matching tensors, such as 'head.*'. Repeatable.")
@random_weights
@description
@facts
@zoo
@with_output
def export(
    model: str | None, formats: list[str], out: str | None, triton: Path | None, opset: int | None, batch: int | None,
    operators: Any, placement: Any, outputs: str | None, include: tuple[str, ...], dynamic: Any, verify: str,
    precision: str | None, fp16: bool, bf16: bool, int8: str | None, force: bool, calibrate: Path | None, evaluate: Path | None,
    min_agreement: float | None, min_accuracy: float | None, min_cosine: float | None, min_neighbours: float | None,
    weights: str | None, allow_drop: tuple[str, ...], random: bool, seed: int | None,
    facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Export a model to files and verify each of them.

    MODEL defaults to the current folder. A registry name means its published weights; --random makes random ones. A file gets
    its name only after it was verified; one that does not compute the model is set aside as NAME.rejected.

    --precision writes a file for each precision: NAME.onnx, NAME_fp16.onnx, NAME_bf16.onnx, NAME_int8.onnx (static),
    NAME_int8_dynamic.onnx and NAME_int8_weights.onnx; --fp16, --bf16 and --int8 add one. An earlier export of the same model is
    replaced; anything else only with --force.

    --int8 static quantises weights and activations. The ranges of the activations are calibrated on the images in --calibrate,
    so the result for an image does not depend on the other images of its batch. --int8 dynamic takes the ranges from each
    batch; --int8 weights quantises the weights only. With --evaluate or a minimum, as few layers as necessary stay in float; if
    that is not enough, the export fails.

    --dynamic hw interpolates learned position embeddings in the graph, with the method of the source library, or with the one
    that --set resize=RECIPE names. --dynamic patches takes the patches of images of different sizes in one batch: pixel_values
    [batch, patches, height x width x channels of a patch], pixel_attention_mask and spatial_shapes, as transformers' processor
    of SigLIP 2 NaFlex makes them.

    --batch 1 --operators core makes a graph that mobile and NPU compilers take as a whole, with the same results.

    --include preprocess adds preprocessing to the graph: it takes images of any size as uint8 [batch, height, width, channels].
    Pixels differ from Pillow's by at most 2 of 255 levels; preprocess-exact gives the same pixels, but is slower.
    --include softmax replaces logits by probabilities; for classes of which several can apply, --include sigmoid does.

    \b
    vitzoo export --onnx
    vitzoo export checkpoint.safetensors --onnx --torchscript --pt2
    vitzoo export --onnx --precision fp32,fp16,int8-static --calibrate photos --min-agreement 0.99
    vitzoo export vit_digits --onnx --triton repository
    vitzoo export vit_digits --onnx --batch 1 --operators core
    vitzoo export weights.pth --onnx --labels names.txt --preprocess imagenet --crop 0.9
    """
    if not formats:
        from vit_zoo.formats import FORMATS

        raise InputError(f"no format given; choose from {', '.join(f'--{name}' for name in FORMATS)}")
    precisions: list[Any] = [] if precision is None else precision.split(",")
    precisions += [name for name, wanted in (("fp16", fp16), ("bf16", bf16), (f"int8-{int8}", int8)) if wanted]
    note_name(model, output, as_architecture=random or weights is not None)
    from vit_zoo.api import export as export_model
    from vit_zoo.cli.export_document import ExportDocument

    exports = export_model(
        "." if model is None else model, formats, out=out, triton=triton, opset=opset, batch=batch, operators=operators,
        placement=placement, outputs=[] if outputs is None else outputs.split(","), include=include, dynamic=dynamic,
        verify=VERIFY.get(verify, verify), weights=weights, allow_drop=allow_drop, random=random, seed=seed,
        precision=precisions or "fp32", force=force, calibrate=calibrate, evaluate=evaluate,
        min_agreement=min_agreement, min_accuracy=min_accuracy, min_cosine=min_cosine, min_neighbours=min_neighbours, **facts,
    )  # fmt: skip
    output.result([ExportDocument.of(item) for item in exports], lambda: "\n".join(export_text(item) for item in exports))
    output.suggest(*next_steps(exports, model, None if outputs is None else outputs.split(","), random=random, seed=seed))


@click.command(epilog=MODEL)
@click.argument("artifact", metavar="FILE|MODEL", shell_complete=complete_model)
@click.option(
    "--against",
    metavar="MODEL",
    shell_complete=complete_model,
    help="Reference model, or another exported file (default: the spec and weights in the file).",
)
@click.option(
    "--quick",
    "effort",
    flag_value="quick",
    help="Check less: three images, no float64 reference, no run without onnxruntime's optimiser.",
)
@click.option(
    "--full", "effort", flag_value="full", help="Check more: more images and batch sizes, and every intermediate value."
)
@click.option(
    "--fixed",
    metavar="AXES",
    shell_complete=words("channels", "height", "width"),
    help="Comma-separated axes that the file declares dynamic but that are used at one size: channels, height, width.",
)
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="int8 only: real images to measure the file on.")
@click.option(
    "--min-cosine",
    type=float,
    metavar="COSINE",
    help="int8 only: minimum cosine of each image's outputs, in place of the usual limits.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Plot the error after each block to FILE (.png or .svg)."
)
@run_limits
@random_weights
@facts
@zoo
@with_output
def verify(
    artifact: str, against: str | None, effort: Any, fixed: str | None, pictures: Path | None, min_cosine: float | None,
    plot: Path | None, time_limit: float | None, memory_limit: float | None, random: bool, seed: int | None,
    facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Check that an exported file computes its model.

    The file may come from any tool. With --against, two models or two exported files can be compared too. If the outputs
    differ, the exit code is 3, and the first block and operation that differ are named. The report is written to
    FILE.parity.json.

    --set states facts about the --against model, and --random compares with random weights of it.

    \b
    vitzoo verify vit_b16.onnx --against ./vit_b16
    vitzoo verify theirs.onnx --against checkpoint.safetensors --fixed height,width
    """
    from vit_zoo.api import verify as verify_artifact
    from vit_zoo.cli.text import report_text, verdict_text

    if facts and against is None:
        raise InputError("--set states facts about the --against model; give --against MODEL too")
    note_name(against, output, as_architecture=random)
    if plot is not None:
        from vit_zoo.parity.plot import check_plot

        check_plot(plot)
    output.progress(f"checking {artifact}")
    axes = [] if fixed is None else fixed.split(",")
    report = verify_artifact(
        artifact, against, effort=effort or "default", fixed=axes, blocks=plot is not None, pictures=pictures,
        min_cosine=min_cosine, random=random, seed=seed, time_limit=time_limit, memory_limit=memory_limit, **facts,
    )  # fmt: skip
    if plot is not None:
        from vit_zoo.parity.plot import draw

        draw(report, plot)
    for warning in report.warnings:
        output.warn(f"warning: {artifact}: {warning}")
    if not report.ok:
        if not output.json:  # with --json, the error's document holds the report
            output.result(None, lambda: report_text(report))
        hint = None if report.sha256 is None else f"see {Path(artifact).name}.parity.json"
        cause = f"does not compute {report.reference}: {report.summary()}"
        raise CheckFailed(cause, where=artifact, hint=hint, details={"report": report.model_dump(mode="json")})
    text = verdict_text(artifact, report)
    output.result(report, lambda: f"{report_text(report)}\n\n{text}" if output.verbose or effort == "full" else text)
