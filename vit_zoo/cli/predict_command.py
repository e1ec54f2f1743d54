"""Command `predict`: the classes of images, by an exported file or a model, and pictures of its attention."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vit_zoo.cli.completion import complete_model
from vit_zoo.cli.options import MODEL, description, engine_options, facts, fast_crop, note_name, run_limits, zoo
from vit_zoo.cli.output import Output, with_output
from vit_zoo.cli.text import table
from vit_zoo.errors import InputError, RefusedContent, VitzooError

if TYPE_CHECKING:
    from vit_zoo.files.image_inputs import ImageInput
    from vit_zoo.formats.artifact import Artifact
    from vit_zoo.inference.predict import Prediction
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.vit import ViT

STDOUT = Path("-")
MOST_REASONS = 20  # images that cannot be read, each of which gets a line


@click.command(epilog=MODEL + "  FILE.onnx                     an exported file\n")
@click.argument("model", shell_complete=complete_model)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top", type=click.IntRange(1), metavar="INTEGER", help="Number of classes to print (default: 1); not for a regression."
)
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the predictions as CSV, with a row for each class of each image; - prints it.",
)  # fmt: skip
@click.option(
    "--attention", type=click.Path(path_type=Path), metavar="FILE|DIR",
    help="Draw where the model looks: attention rollout over the image, as FILE (.png, .jpg) or, of several images, in DIR.",
)  # fmt: skip
@fast_crop
@click.option("--threads", type=click.IntRange(1, 1024), metavar="INTEGER", help="ONNX only: number of onnxruntime threads.")
@engine_options
@run_limits
@description
@facts
@zoo
@with_output
def predict(
    model: str, images: tuple[Path, ...], top: int | None, csv_file: Path | None, attention: Path | None, fast_crop: bool,
    threads: int | None, workers: int | None, engine: Any, address: str | None, time_limit: float | None,
    memory_limit: float | None, facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Classify images with an exported file or a model.

    Prints the most probable classes of each image with their probabilities. An exported ONNX file is enough: it contains the
    labels and the preprocessing, and torch is not needed. A classifier of another tool needs --preprocess.

    IMAGES are files, folders, which stand for all images in them, and patterns such as 'photos/**/*.jpg'. Of several images,
    those that cannot be read are reported at the end, with exit code 7.

    Where several classes can apply to an image (problem_type multi_label_classification), each has a probability of its own. A
    regression has values instead. --set problem_type=... states it for a model that does not.

    More than 32 images are run by several workers, each with one thread, unless --threads is given; the limits are then those of
    one batch. --engine ray runs the workers on a Ray cluster. Images and FILE must be on a file system that all of its machines
    share.

    --attention needs a file that was exported with --outputs 'logits,attn.*', or a model.

    \b
    vitzoo predict vit_digits.onnx digit.png --top 3
    vitzoo predict vit_digits.onnx photos --csv classes.csv
    vitzoo predict model.onnx photo.jpg --attention attention.png
    """
    from vit_zoo.files.image_inputs import image_inputs
    from vit_zoo.formats.artifact import Artifact
    from vit_zoo.formats.limits import Limits
    from vit_zoo.inference.engine import engine_of
    from vit_zoo.inference.predict import classifier_of, is_exported_file, opened_model
    from vit_zoo.inference.predict_files import FilePredictor
    from vit_zoo.inference.worker import SMALL_CHUNK
    from vit_zoo.model.classification import predictions

    _check_csv(csv_file, output)
    note_name(model, output, as_architecture=False)
    single = threads is not None or attention is not None or not is_exported_file(model)
    parallel = workers is not None or engine != "local" or address is not None
    if parallel and single:
        raise InputError("--workers and --engine apply to exported ONNX files, without --threads and --attention")
    opened, stated = opened_model(model, threads, Limits.of(time_limit, memory_limit), facts)
    drawing = None if attention is None else Drawing(opened, stated, attention)
    classifier = None
    if drawing is None or _has_classes(opened):
        classifier = classifier_of(opened, stated)
        classifier.config.known_preprocess()
    else:
        _refuse_without_classes(model, top=top, csv=csv_file, fast_crop=fast_crop)
    inputs = list(image_inputs(images))
    unread = Unread(len(inputs))
    if drawing is not None:
        drawing.check(len(inputs))
    done: list[Prediction] = []
    how: dict[str, Any] = {"top": top, "default_top": 1, "fast_crop": fast_crop}
    if parallel or (not single and len(inputs) > SMALL_CHUNK):
        assert isinstance(opened, Artifact)
        opened.close()  # each worker opens the file itself
        with closing(engine_of(engine, address, workers)) as run_on:
            predictor = FilePredictor.of(opened, facts, time_limit=time_limit, memory_limit=memory_limit, **how)
            done = predictor.predictions(inputs, run_on, unread.add)
    elif classifier is not None:
        done = predictions(classifier, inputs, failed=unread.add, **how)
    if classifier is not None:
        _warn(classifier.config, output)
    drawn = {} if drawing is None else drawing.draw([image for image in inputs if image.name not in unread.reasons], unread)
    if csv_file is not None:
        _write_csv(done, csv_file)
    _print(done, drawn, csv_file, attention, unread, output)


class Drawing:
    """Pictures of the attention of a model."""

    def __init__(self, opened: Artifact | ViT, stated: dict[str, Any], target: Path) -> None:
        from vit_zoo.inference.attention import attention_source

        self.source, self.target = attention_source(opened, stated), target

    def check(self, count: int) -> None:
        """Check that pictures of so many images can be written, before slow work."""
        from vit_zoo.inference.attention_pictures import PictureFiles

        self.files = PictureFiles(self.target, count)

    def draw(self, images: list[ImageInput], unread: Unread) -> dict[str, Path]:
        """Draw a picture of each image and return them by the names of the images."""
        from vit_zoo.inference.attention_pictures import draw_all

        return draw_all(self.source, images, self.files, unread.add)


class Unread:
    """Images that could not be read, by their names."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reasons: dict[str, VitzooError] = {}

    def add(self, name: str, error: VitzooError) -> None:
        """Keep the reason for an image. Raises it if this was the only image."""
        if self.count == 1:
            raise error
        self.reasons[name] = error

    def report(self, documents: Sequence[Any], output: Output) -> None:
        """Raise RefusedContent if there are any, with the results for the others."""
        if not self.reasons:
            return
        for error in list(self.reasons.values())[:MOST_REASONS]:
            output.warn(str(error))
        if len(self.reasons) > MOST_REASONS:
            output.warn(f"... and {len(self.reasons) - MOST_REASONS:,} more")
        failures = [{"file": name, "reason": error.message} for name, error in self.reasons.items()]
        details = {"failures": failures, "results": [document.model_dump(mode="json") for document in documents]}
        raise RefusedContent(f"{len(self.reasons):,} of {self.count:,} images cannot be read", details=details)


def _check_csv(target: Path | None, output: Output) -> None:
    """Check that a CSV table can be written, before slow work."""
    from vit_zoo.files.atomic import check_target

    if target == STDOUT and output.json:
        raise InputError("--json and --csv - both print the result")
    if target is not None and target != STDOUT:
        check_target(target)


def _has_classes(opened: Artifact | ViT) -> bool:
    """Return whether there are classes to print; else only attention can be drawn."""
    from vit_zoo.formats.artifact import Artifact
    from vit_zoo.formats.classifier import LOGITS, PROBABILITIES

    if not isinstance(opened, Artifact):
        return bool(opened.config.classes)
    config = opened.about.config
    return config is not None and bool(config.classes) and bool({LOGITS, PROBABILITIES} & set(opened.outputs))


def _refuse_without_classes(model: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            cause = f"--{name.replace('_', '-')} does not apply: there are no classes, so only attention is drawn"
            raise InputError(cause, where=model)


def _warn(config: ModelConfig, output: Output) -> None:
    """Print warnings about a classifier whose predictions mean nothing, or have no names."""
    from vit_zoo.loading.stated import without_names
    from vit_zoo.model.config import LABELS

    if config.random_text:
        output.warn(f"{config.name} has {config.random_text}: its predictions mean nothing")
    if without_names(config):
        output.warn(f"the classes of {config.name} have no names; {LABELS.on_command_line} states them")


def _print(
    done: Sequence[Prediction], drawn: dict[str, Path], csv_file: Path | None, attention: Path | None, unread: Unread,
    output: Output,
) -> None:  # fmt: skip
    """Print predictions, and what was written. Raises RefusedContent for images that could not be read."""
    from vit_zoo.cli.documents import DrawnDocument, PredictDocument

    by_name = {prediction.file: prediction for prediction in done}
    documents: list[Any] = [PredictDocument.of(prediction) for prediction in done]
    if attention is not None:
        documents = [DrawnDocument.drawn(name, by_name.get(name), drawn.get(name)) for name in by_name or drawn]

    def text() -> str:
        lines = [_table(done)] if done and csv_file is None else []
        if csv_file not in (None, STDOUT):
            lines.append(f"wrote the classes of {len(done):,} images to {csv_file}")
        if drawn:
            lines.append(f"wrote {attention}" if len(drawn) == 1 else f"wrote {len(drawn):,} pictures to {attention}")
        return "\n".join(lines)

    if not (output.json and unread.reasons) and (done or drawn) and csv_file != STDOUT:
        output.result(documents, text)  # with --json, the document of the error holds the results
    unread.report(documents, output)


def _table(done: Sequence[Prediction]) -> str:
    return table(
        [(p.file, "  ".join(f"{name} {_score(p, x)}" for name, x in zip(p.labels, p.scores, strict=True))) for p in done]
    )


def _score(prediction: Prediction, score: float) -> str:
    return f"{score:.6g}" if prediction.activation is None else f"{100 * score:.1f} %"


def _write_csv(done: Sequence[Prediction], target: Path) -> None:
    """Write a row for each class of each image, atomically."""
    import csv
    import io

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    values = bool(done) and done[0].activation is None
    rows.writerow(("file", "label", "value") if values else ("file", "rank", "label", "probability"))
    for prediction in done:
        for rank, (label, score) in enumerate(zip(prediction.labels, prediction.scores, strict=True), 1):
            rows.writerow((prediction.file, label, score) if values else (prediction.file, rank, label, score))
    if target == STDOUT:
        click.echo(text.getvalue(), nl=False)
        return
    from vit_zoo.files.atomic import write_text

    write_text(target, text.getvalue())
