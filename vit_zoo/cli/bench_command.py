"""Command `bench`: measure exported files and models against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.completion import complete_model, words
from vit_zoo.cli.options import MODEL, facts, random_weights, run_limits, zoo
from vit_zoo.cli.output import Output, with_output
from vit_zoo.errors import CheckFailed, shown

TARGETS = (
    MODEL + "  FILE.onnx                     an exported file, by any tool\n"
    "  timm:NAME                     an architecture of timm, torchvision or transformers,\n"
    "                                with random weights\n"
)


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Parse integers separated by commas."""
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected integers separated by commas, got {shown(text)}") from None


def _names(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(","))


@click.command(epilog=TARGETS)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", shell_complete=complete_model)
@click.option(
    "--runtimes",
    metavar="NAMES",
    callback=_names,
    shell_complete=words("eager", "compile", "torchscript", "pt2", "ort", "openvino"),
    help="Comma-separated runtimes: eager, compile, torchscript, pt2, ort, openvino (default: all that are installed).",
)
@click.option(
    "--precision",
    metavar="NAMES",
    callback=_names,
    shell_complete=words("fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"),
    help="Comma-separated precisions of models: fp32, fp16, bf16, int8-static, int8-dynamic, int8-weights (default: fp32).",
)
@click.option("--batch", metavar="NUMBERS", callback=_numbers, help="Comma-separated batch sizes (default: 1).")
@click.option(
    "--threads", metavar="NUMBERS", callback=_numbers, help="Comma-separated numbers of threads (default: the number of cores)."
)
@click.option("--rounds", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Most rounds.")
@click.option(
    "--seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="Time after which no round begins, except for the first 6.",
)
@click.option(
    "--against",
    metavar="MODEL",
    shell_complete=complete_model,
    help="Reference of exported files (default: the spec and weights in the file).",
)
@click.option(
    "--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="int8-static only: images to calibrate the ranges with."
)
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Also write the rows to FILE as CSV.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Plot latency against memory and file size to FILE (.png or .svg).",
)
@run_limits
@random_weights
@facts
@zoo
@with_output
def bench(
    targets: tuple[str, ...], runtimes: tuple[str, ...] | None, precision: tuple[str, ...] | None, batch: tuple[int, ...] | None,
    threads: tuple[int, ...] | None, rounds: int, seconds: float, against: str | None, calibrate: Path | None,
    table: Path | None, plot: Path | None, time_limit: float | None, memory_limit: float | None, random: bool, seed: int | None,
    facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Measure exported files and models against each other on this CPU.

    Each target in each runtime and precision, batch size and number of threads is a row with a process of its own. In each round
    every row is measured once, in a shuffled order, so that other work on the machine affects all of them alike. The table shows
    the median and the 95th percentile with their confidence intervals, and the median of each round's ratio to the first row.

    First the outputs of each row are compared with those of the model, under the tolerance of its precision. A row that fails is
    shown as failed, without a speed, and the exit code is 3. Exported files are compared with the weights in them, or with
    --against; models of other libraries with themselves in eager mode.

    --random makes random weights for the names that have none of their own.

    \b
    vitzoo bench vit_digits vit_ti16 --random
    vitzoo bench model.onnx model_int8.onnx --batch 1,8 --threads 1,2 --csv rows.csv
    vitzoo bench ./vit_s16 timm:vit_small_patch16_224 --runtimes eager,ort --plot bench.svg
    """
    from vit_zoo.files.atomic import check_target
    from vit_zoo.inference.bench import bench as measure

    if plot is not None:
        from vit_zoo.parity.plot import check_plot

        check_plot(plot)
    for path in (table, plot):
        if path is not None:
            check_target(path)
    output.progress(f"measuring {', '.join(targets)}")
    result = measure(
        targets, runtimes=runtimes, precision=precision or (), batch=batch, threads=threads, rounds=rounds, seconds=seconds,
        random=random, seed=seed, against=against, calibrate=calibrate, time_limit=time_limit, memory_limit=memory_limit, **facts,
    )  # fmt: skip
    if table is not None:
        result.to_csv(table)
    if plot is not None and result.base is not None:
        result.plot(plot)
    failed = [row for row in result.rows if not row.ok]
    if not failed:
        output.result(result, lambda: str(result))
        return
    if not output.json:  # with --json, the error's document holds the result
        output.result(None, lambda: str(result))
    count = f"{len(failed)} of {len(result.rows)} rows failed"
    cause = f"{count}: {failed[0]}: {failed[0].fault}"
    raise CheckFailed(cause, details={"bench": result.model_dump(mode="json")})
