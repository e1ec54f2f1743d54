"""Command `embed`: features of many images, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.completion import complete_model, words
from vit_zoo.cli.options import batch_limits, engine_options, fast_crop, preparation
from vit_zoo.cli.output import Output, with_output


@click.command()
@click.argument("artifact", metavar="FILE", shell_complete=complete_model)
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...", type=click.Path())
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File to write: .parquet, .npy or .safetensors; without a suffix, a folder of Parquet files.",
)
@click.option(
    "--output",
    "name",
    metavar="NAME",
    shell_complete=words("image_embeds", "pooler_output", "class_token", "patch_mean", "token_mean", "dist_token", "block."),
    help="What the features are: an output of the file, or class_token, patch_mean, ... of one; see above.",
)
@click.option("--normalise", is_flag=True, help="Divide each image's features by their L2 norm.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Type of the features."
)
@click.option("--column", metavar="NAME", help="Column of paths in tables (default: the only one, or path, file_name, ...).")
@click.option("--force", is_flag=True, help="Replace existing files, and the partial result of another run.")
@engine_options
@batch_limits
@fast_crop
@preparation
@with_output
def embed(
    artifact: str, images: tuple[str, ...], out: Path, name: str | None, normalise: bool, dtype: Any, batch: int | None,
    workers: int | None, column: str | None, force: bool, engine: Any, address: str | None, time_limit: float | None,
    memory_limit: float | None, fast_crop: bool, preprocess: Any, output: Output,
) -> None:  # fmt: skip
    """Write the features of images to a file.

    FILE is an exported ONNX file of any tool; one that states no preprocessing needs --preprocess. IMAGES are image files,
    folders, patterns such as 'photos/**/*.jpg', list files (.txt), tables with a column of paths (.csv, .parquet) and archives
    (.tar, in WebDataset's layout).

    OUT.parquet has path, height, width and features of each image. OUT.npy and OUT.safetensors have the features alone, and
    OUT.csv lists the images. OUT without a suffix is a folder of Parquet files. Images that cannot be read are listed in
    OUT.failures.csv.

    --output is the name of an output [batch, width]; or class_token, dist_token, patch_mean or token_mean of last_hidden_state,
    or of another output of tokens, as in block.5:patch_mean. The default is image_embeds, pooler_output, or the class token of
    last_hidden_state (the mean of the patches if there is none), whichever the file has first.

    --engine ray runs the workers on a Ray cluster, with the same result. Images, FILE and OUT must be on a file system that all
    of its machines share.

    Finished parts are kept in OUT.partial until everything is done. After an interruption, the same command goes on.

    \b
    vitzoo export vit_b16 --onnx --outputs pooler_output
    vitzoo embed vit_b16.onnx photos -o features.parquet --normalise
    """
    from vit_zoo.cli.documents import EmbedDocument
    from vit_zoo.inference.embed import embed as embed_images

    done = embed_images(
        artifact, images, out, output=name, normalise=normalise, dtype=dtype, batch=batch, workers=workers, column=column,
        preprocess=preprocess, fast_crop=fast_crop, force=force, time_limit=time_limit, memory_limit=memory_limit, engine=engine,
        address=address,
    )  # fmt: skip
    output.result(EmbedDocument.of(done), lambda: str(done))
