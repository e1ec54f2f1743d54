"""The verbs of the Hub: a model to a repository, and a repository to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vit_zoo.cli.options import MODEL, FormatsCommand, facts, note_name, zoo
from vit_zoo.cli.output import Voice, speaking, table


@click.command(cls=FormatsCommand, flag_help="Include the {title}.", graphs=False, epilog=MODEL)
@click.argument("model")
@click.argument("repo", metavar="ORG/NAME")
@click.option("--dry-run", type=click.Path(path_type=Path), metavar="DIR", help="Stage it in DIR; send nothing.")
@click.option("--private", is_flag=True, help="If the repository is made: for its owners alone.")
@click.option("--revision", metavar="BRANCH", help="A branch, made if it is not there; main by default.")
@click.option("--create-pr", is_flag=True, help="Propose it as a pull request.")
@click.option("--tag", help="A tag for the commit; must be new.")
@click.option("--license", "--licence", "licence", help="Of weights whose licence is not known yet, such as apache-2.0.")
@click.option("--message", help="Of the commit.")
@click.option("--without", multiple=True, type=click.Choice(["fp32", "fp16", "int8"]), help="An ONNX file to leave out.")
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="DIR", help="Images for a static int8 file.")
@click.option("--random-weights", is_flag=True, help="Publish weights that are not trained.")
@facts
@zoo
@speaking
def publish(
    model: str, repo: str, dry_run: Path | None, private: bool, revision: str | None, create_pr: bool, tag: str | None,
    licence: str | None, message: str | None, formats: list[str], without: tuple[str, ...], calibrate: Path | None,
    random_weights: bool, facts: dict[str, Any], voice: Voice,
) -> None:  # fmt: skip
    """Publish a model so that vit_zoo, timm, transformers, transformers.js, optimum and onnxruntime load it.

    One commit holds the weights in both layouts, ONNX files in three precisions, each verified, their reports, and a card
    made of measurements; nothing is sent that is there already. Files exported into the model's folder go along as they
    are, if their verdicts are good and of these weights.

    \b
    vitzoo publish ./vit_b16 me/vit_b16 --dry-run staged
    vitzoo publish ./vit_b16 me/vit_b16 --license apache-2.0 --tag v1
    """
    from vit_zoo.api import publish as publish_model
    from vit_zoo.cli.documents import PublishDocument

    note_name(model, voice)
    done = publish_model(
        model, repo, dry_run=dry_run, revision=revision, private=private, create_pr=create_pr, tag=tag, licence=licence,
        message=message, formats=formats, without=without, calibrate=calibrate, random_weights=random_weights,
        note=voice.progress, **facts,
    )  # fmt: skip
    for line in done.unsent:
        voice.warn(f"not sent: {line}")
    if done.config.random_seed is not None:
        voice.warn(f"RANDOM WEIGHTS: {done.config.name} is not trained")
    if done.config.licence is None:
        voice.warn("nobody stated a licence: --license does")
    sent = done.sent

    def text() -> str:
        lines = [table([(name, f"{size:,}") for name, size in done.files.items()])]
        lines.append(f"for {', '.join(done.clients)}")
        lines += [f"not for {name}: {why}" for name, why in done.reasons.items()]
        if sent is None:
            lines.append(f"staged in {done.folder}/, nothing was sent")
        elif sent.added or sent.deleted:
            gone = f", {len(sent.deleted)} removed" if sent.deleted else ""
            lines.append(f"{sent.url}: {len(sent.added)} files changed{gone}")
        else:
            lines.append(f"{sent.url}: all of it was there, nothing was sent")
        return "\n".join(lines)

    voice.result(PublishDocument.of(done), text)


@click.command()
@click.argument("repo", metavar="ORG/NAME[@REVISION]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The folder to write; ./NAME by default.")
@click.option("--offline", is_flag=True, help="Take what is in the Hub's cache; ask nobody.")
@click.option("--force", is_flag=True, help="Replace a model that is there.")
@speaking
def pull(repo: str, out: Path | None, offline: bool, force: bool, voice: Voice) -> None:
    """Write a repository of the Hub as a folder: ours, timm's or transformers'.

    Every file is compared with the hash that the Hub states. The commit, the licence and its text are kept.

    \b
    vitzoo pull google/vit-base-patch16-224
    vitzoo pull timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k@main -o tiny
    """
    from vit_zoo.api import pull as pull_model
    from vit_zoo.cli.documents import PullDocument

    voice.progress(f"asking for {repo}")
    done = pull_model(repo, out, offline=offline or None, force=force)
    config = done.config
    link = f" ({config.licence_link})" if config.licence_link else ""
    lines = (
        f"wrote {done.folder}/: {config.name}, {config.spec.params:,} parameters",
        f"from {config.source}",
        f"licence: {config.licence or 'nobody stated one'}{link}",
    )
    voice.result(PullDocument.of(done), lambda: "\n".join(lines))
