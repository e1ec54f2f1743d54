"""Command `probe`: a new head on the features of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_zoo.cli.completion import complete_model
from vit_zoo.cli.options import MODEL, SEED, description, facts, note_name, zoo
from vit_zoo.cli.output import Output, with_output

if TYPE_CHECKING:
    from vit_zoo.inference.probe import Probe

SHOWN = 3  # images that cannot be read, and classes, in the text


@click.command(epilog=MODEL)
@click.argument("model", shell_complete=complete_model)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder to write.")
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Embeddings of the classes (.npz or .safetensors), for a zero-shot head.",
)
@click.option("--logit-scale", type=float, metavar="NUMBER", help="Factor of the cosines (default: the file's or the model's).")
@click.option("--logit-bias", type=float, metavar="NUMBER", help="Bias of the logits (SigLIP's), in the same way.")
@click.option("--column", metavar="NAME", help="Column of the paths in a CSV or Parquet table (default: path, file, ...).")
@click.option("--label-column", metavar="NAME", help="Column of the classes (default: label).")
@click.option("--held-out", type=float, metavar="SHARE", help="Share of each class to test the head on (default: 0.2).")
@click.option("--seed", type=SEED, metavar="INTEGER", help="Seed for the choice of these images (default: 0).")
@click.option(
    "--workers", type=click.IntRange(1, 1024), metavar="INTEGER", help="Number of workers (default: one for each core)."
)
@click.option("--force", is_flag=True, help="Replace the model in the folder, if there is one.")
@description
@facts
@zoo
@with_output
def probe(
    model: str, images: tuple[Path, ...], out: Path, classes: Path | None, logit_scale: float | None, logit_bias: float | None,
    column: str | None, label_column: str | None, held_out: float | None, seed: int | None, workers: int | None, force: bool,
    facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Make a classifier of a model's features: fit a linear head to your images.

    The subfolders of IMAGES name the classes; in a CSV or Parquet table, or in tar shards, labels do. The features stay as they
    are, so minutes on a CPU are enough. The accuracy is measured on images that were held out. The folder gets the model with
    its new head and labels, and a verified ONNX file.

    With --classes, the head is made of embeddings of texts instead, which the text encoder of CLIP or SigLIP computed: the
    arrays embeddings [classes, width] and labels [classes]. IMAGES then only measure its accuracy.

    \b
    vitzoo probe dinov2_s14 photos -o pets
    vitzoo probe vit_s16 labels.csv -o pets --held-out 0.1
    vitzoo probe ./clip_b16 --classes embeddings.npz -o zero_shot
    """
    from vit_zoo.cli.probe_document import ProbeDocument
    from vit_zoo.inference.probe import probe as probe_model

    note_name(model, output, as_architecture=False)
    done = probe_model(
        model, images or None, out=out, classes=classes, logit_scale=logit_scale, logit_bias=logit_bias, column=column,
        label_column=label_column, held_out=held_out, seed=seed, workers=workers, force=force, **facts,
    )  # fmt: skip
    if done.unreadable:
        shown = done.unreadable if output.verbose else done.unreadable[:SHOWN]
        listed = "; ".join(f"{name}: {reason}" for name, reason in shown)
        more = (
            f" and {len(done.unreadable) - len(shown):,} more (--verbose lists them)" if len(shown) < len(done.unreadable) else ""
        )
        count = "1 image" if len(done.unreadable) == 1 else f"{len(done.unreadable):,} images"
        output.warn(f"left out {count} that cannot be read: {listed}{more}")
    output.result(ProbeDocument.of(done), lambda: "\n".join(_lines(done)))
    output.suggest(f"vitzoo predict {done.export.path} IMAGE", f"vitzoo publish {done.folder} ORG/NAME")


def _lines(done: Probe) -> list[str]:
    """Describe the new head, its accuracy, the classes that it confuses most, and what was written."""
    from vit_zoo.cli.text import export_text

    lines = []
    fitted = sum(c.fitted for c in done.classes)
    if done.C is not None:
        tried = f", the best of {len(done.trials)} values" if done.trials else ""
        lines.append(f"fitted a head for {len(done.classes)} classes to {fitted:,} images (C = {done.C:g}{tried})")
    if done.accuracy is not None:
        lines.append(f"top-1 accuracy: {done.accuracy}")
    wrong = sorted((c for c in done.classes if c.tested and c.right < c.tested), key=lambda c: c.right / c.tested)[:SHOWN]
    if wrong:
        lines.append("lowest: " + ", ".join(f"{c.label} {100 * c.right / c.tested:.1f} %" for c in wrong))
    lines.append(f"wrote {done.folder}/: {done.config.name} with {done.config.classes} classes")
    lines.append(export_text(done.export))
    return lines
