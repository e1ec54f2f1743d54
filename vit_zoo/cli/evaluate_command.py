"""Command `evaluate`: how well an exported file does on images whose classes or values are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.completion import complete_model, words
from vit_zoo.cli.options import batch_limits, description, engine_options, facts, fast_crop
from vit_zoo.cli.output import Output, with_output


@click.command()
@click.argument("artifact", metavar="FILE", shell_complete=complete_model)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--against", metavar="FILE", type=click.Path(), help="Compare with another exported file on the same images.")
@click.option("--csv", "table", metavar="FILE", type=click.Path(path_type=Path), help="Write the result of each image to FILE.")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Plot confusions and calibration, or what the kind of file has, to FILE (.png or .svg).",
)
@click.option(
    "--output",
    "wanted",
    metavar="NAME",
    shell_complete=words("logits", "pooler_output", "image_embeds", "class_token", "patch_mean", "token_mean", "block."),
    help="Output to evaluate, as in embed (default: the classes, or the features of a file without classes).",
)
@click.option("--k", type=int, metavar="INTEGER", help="Features only: number of nearest neighbours (default: 10).")
@click.option("--column", metavar="NAME", help="Tables only: column of paths (default: path).")
@click.option("--label-column", metavar="NAME", help="Tables only: column of labels (default: label).")
@engine_options
@batch_limits
@fast_crop
@description
@facts
@with_output
def evaluate(
    artifact: str, images: tuple[Path, ...], against: str | None, table: Path | None, plot: Path | None, wanted: str | None,
    k: int | None, column: str | None, label_column: str | None, batch: int | None, workers: int | None,
    engine: Any, address: str | None, time_limit: float | None, memory_limit: float | None, fast_crop: bool,
    facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Measure the accuracy of an exported file, or the difference between two.

    IMAGES is a folder with a subfolder for each class, or a .csv or .parquet table with the columns path and label. Classes
    are named by their labels, by their numbers, or by the WordNet ids of ImageNet-1k. Torch is not needed.

    Prints top-1 and top-5 accuracy with 95 % confidence intervals, the expected calibration error, recall and precision of
    each class, and the most frequent confusions. Files for several labels (a;b in a table) and regressions have measures of
    their own. Of features, it is the accuracy by the nearest neighbours among the other images.

    With --against, it is the difference between two files, with its confidence interval and McNemar's exact test: what
    int8 costs. Two files of features are also compared by the neighbours that they share, for which no classes are needed.

    \b
    vitzoo evaluate vit_b16.onnx photos
    vitzoo evaluate vit_b16_int8.onnx photos --against vit_b16.onnx
    """
    from vit_zoo.inference.evaluate import evaluate as evaluate_artifact
    from vit_zoo.inference.evaluate.files import check_table, write_table

    if plot is not None:
        from vit_zoo.parity.plot import check_plot

        check_plot(plot)
    if table is not None:
        check_table(table, images)
    done = evaluate_artifact(
        artifact, images, against=against, output=wanted, k=k, column=column, label_column=label_column, batch=batch,
        workers=workers, time_limit=time_limit, memory_limit=memory_limit, fast_crop=fast_crop,
        engine=engine, address=address, **facts,
    )  # fmt: skip
    output.result(done, lambda: str(done))  # first, so that a full disk does not lose it
    if table is not None:
        write_table(done, table)
    if plot is not None:
        from vit_zoo.inference.evaluate.plot import draw

        draw(done, plot)
