"""Commands `publish` and `pull`: from a model to a repository of the Hub, and from a repository to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.completion import complete_model
from vit_zoo.cli.options import MODEL, FormatsCommand, description, facts, note_name, zoo
from vit_zoo.cli.output import Output, with_output
from vit_zoo.cli.text import published_text


@click.command(cls=FormatsCommand, flag_help="Also publish a {title}.", graphs=False, epilog=MODEL)
@click.argument("model", shell_complete=complete_model)
@click.argument("repo", metavar="ORG/NAME")
@click.option("--dry-run", type=click.Path(path_type=Path), metavar="DIR", help="Write the repository to DIR and send nothing.")
@click.option("--private", is_flag=True, help="Create the repository as private.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, created if it does not exist (default: main).")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing to the branch.")
@click.option("--tag", metavar="TAG", help="Tag for the commit; it must not exist yet.")
@click.option(
    "--license",
    "--licence",
    "licence",
    metavar="LICENCE",
    help="Licence of the weights, such as apache-2.0, if none is known yet.",
)
@click.option("--message", help="Commit message.")
@click.option(
    "--without", multiple=True, type=click.Choice(["fp32", "fp16", "int8"]), help="Leave out this ONNX file. Repeatable."
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Images to calibrate a static int8 file with (default: int8 weights only).",
)
@click.option("--random-weights", is_flag=True, help="Allow publishing untrained weights.")
@description
@facts
@zoo
@with_output
def publish(
    model: str, repo: str, dry_run: Path | None, private: bool, revision: str | None, create_pr: bool, tag: str | None,
    licence: str | None, message: str | None, formats: list[str], without: tuple[str, ...], calibrate: Path | None,
    random_weights: bool, facts: dict[str, Any], output: Output,
) -> None:  # fmt: skip
    """Publish a model to the Hugging Face Hub.

    vit_zoo, timm, transformers, transformers.js, optimum and onnxruntime load the repository, if they can express the model.
    A single commit adds the weights in the layouts of timm and transformers, ONNX files in float32, float16 and int8, each
    verified, their parity reports, and a model card with measurements. Files that are already there are not sent again. Files
    exported into the model's folder are published too, if their parity reports are good and belong to these weights.

    \b
    vitzoo publish ./vit_b16 me/vit_b16 --dry-run staged
    vitzoo publish ./vit_b16 me/vit_b16 --license apache-2.0 --tag v1
    """
    from vit_zoo.api import publish as publish_model
    from vit_zoo.cli.documents import PublishDocument

    note_name(model, output, as_architecture=random_weights)
    done = publish_model(
        model, repo, dry_run=dry_run, revision=revision, private=private, create_pr=create_pr, tag=tag, licence=licence,
        message=message, formats=formats, without=without, calibrate=calibrate, random_weights=random_weights,
        note=output.progress, **facts,
    )  # fmt: skip
    for line in done.unsent:
        output.warn(f"not sent: {line}")
    if done.config.random_text:
        output.warn(f"{done.config.name} has {done.config.random_text}: it is not trained")
    if done.config.licence is None:
        output.warn("no licence is known; state one with --license")
    output.result(PublishDocument.of(done), lambda: published_text(done))


@click.command()
@click.argument("repo", metavar="ORG/NAME[@REVISION]")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write (default: ./NAME).")
@click.option("--offline", is_flag=True, help="Use only files in the Hub's cache; do not connect.")
@click.option("--force", is_flag=True, help="Replace the model in the folder, if there is one.")
@with_output
def pull(repo: str, out: Path | None, offline: bool, force: bool, output: Output) -> None:
    """Download a model from the Hugging Face Hub into a folder.

    The repository may be in the layout of vit_zoo, timm or transformers. Every file is compared with the hash that the Hub
    states. The folder records the commit and the licence, and keeps the licence text.

    \b
    vitzoo pull google/vit-base-patch16-224
    vitzoo pull timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k@main -o tiny
    """
    from vit_zoo.api import pull as pull_model
    from vit_zoo.cli.documents import PullDocument

    output.progress(f"downloading {repo}")
    done = pull_model(repo, out, offline=offline or None, force=force)
    config = done.config
    link = f" ({config.licence_link})" if config.licence_link else ""
    lines = (
        f"wrote {done.folder}/: {config.name}, {config.spec.params:,} parameters",
        f"from {config.source}",
        f"licence: {config.licence or 'not stated'}{link}",
    )
    output.result(PullDocument.of(done), lambda: "\n".join(lines))
