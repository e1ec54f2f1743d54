"""The command-line reference: the --help text of each command, and an example with its output."""

from __future__ import annotations

import re
from pathlib import Path

import click
from examples import masked, output

from support.loopback_hub import Hub
from vit_zoo.cli.commands import vitzoo

PAGE = "reference/cli.md"
WIDTH = 82  # columns that fit beside the navigation
INTRODUCTION = """# Command line

<!-- made by docs/make from the code -->

Every command has the options `--json` (one document on stdout), `-q`, `-v` and `--debug`. Results are printed on stdout,
everything else on stderr. `NO_COLOR` is respected. `vitzoo completion bash` (`zsh`, `fish`) prints a completion script.

The examples run in a folder with the `zoo` of a checkout, one after the other, and show both streams. `pull` uses a Hub on
the same machine; an example that should fail is marked with its exit code.

## Exit codes

| exit code | |
|---|---|
| 0 | success |
| 1 | a bug in vitzoo |
| 2 | unknown option, name or path; invalid config; a fact that was not stated |
| 3 | a check failed: parity, accuracy, a free axis |
| 4 | an optional dependency is missing; the command that installs it is printed |
| 5 | the Hub, the network, authentication, or offline mode |
| 6 | the target format cannot represent the model |
| 7 | the content of weights, an exported file or an image was refused or cannot be read |
| 8 | the output cannot be written |
| 130, 143 | interrupted, terminated |

An error is one line, `vitzoo: error: FILE: cause (hint)`; with `--json` it is `{code, kind, message, hint}`.

"""
# in this order, because the later ones use files of the earlier ones
EXAMPLES = {
    "list": ("vitzoo list 'vit_ti*' --long", "vitzoo list --where 'params<6M and image_size==224'"),
    "create": ("vitzoo create vit_ti16 --set depth=2 --set num_classes=7 -o tiny",),
    "export": ("vitzoo export vit_digits --onnx", "vitzoo export vit_digits --onnx --fp16 -o digits_fp16.onnx"),
    "show": ("vitzoo show vit_digits.onnx",),
    "convert": ("vitzoo convert vit_digits -o digits_timm.safetensors --to timm",),
    "verify": (
        "vitzoo verify vit_digits.onnx",
        "vitzoo verify vit_digits.onnx --against digits_timm.safetensors --set heads=4 --set act=gelu_tanh -q",
    ),
    "selfcheck": ("vitzoo selfcheck vit_digits.onnx",),
    "predict": ("vitzoo predict vit_digits.onnx zoo/vit_digits/samples/digit_3.png zoo/vit_digits/samples/digit_9.png --top 3",),
    "embed": (
        "vitzoo export vit_digits --onnx --outputs pooler_output -o features.onnx",
        "vitzoo embed features.onnx zoo/vit_digits/held_out -o digits.parquet --normalise",
    ),
    "evaluate": ("vitzoo evaluate digits_fp16.onnx digits.csv --against vit_digits.onnx",),
    "probe": ("vitzoo probe vit_digits scans -o my_digits",),
    "publish": ("vitzoo publish vit_digits me/digits --dry-run staged",),
    "pull": ("vitzoo pull me/digits",),
    "doctor": ("vitzoo doctor",),
}
SETUP = {  # commands that are shown without what they print
    "bench": "vitzoo bench vit_digits.onnx digits_fp16.onnx --runtimes ort --batch 1,8",  # times, which a page has
    "completion": "vitzoo completion bash > ~/.local/share/bash-completion/completions/vitzoo",  # a long script
}
OUTPUT = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def pages(hub: Hub) -> dict[str, str]:
    """Return the page; the current folder is that of the examples."""
    examples = {}
    for name, lines in EXAMPLES.items():
        if name == "evaluate":
            images = sorted(Path("zoo/vit_digits/held_out").glob("*.png"))
            Path("digits.csv").write_text("\n".join(["path,label", *(f"{path},{path.stem[-1]}" for path in images)]))
        if name == "pull":
            staged = Path("staged")
            files = [path for path in staged.rglob("*") if path.is_file()]
            hub.create("me/digits", {path.relative_to(staged).as_posix(): path.read_bytes() for path in files})
        examples[name] = "\n\n".join(_example(line) for line in lines)
    parts = [INTRODUCTION, _help(vitzoo, "vitzoo")]
    for name, command in vitzoo.commands.items():
        example = examples.get(name) or f"$ {SETUP[name]}"
        parts.append(f"## {name}\n\n" + _help(command, f"vitzoo {name}"))
        parts.append(f"Example:\n\n```console\n{example}\n```\n")
    return {PAGE: "\n".join(parts)}


def same(old: str, new: str) -> bool:
    """Compare two versions of the page, without the values of its examples that depend on the machine."""
    old, new = (OUTPUT.sub(lambda match: masked(match[0]), text) for text in (old, new))
    return old == new


def _example(line: str) -> str:
    code, printed = output(line)
    return "\n".join([f"$ {line}", *printed.rstrip().splitlines(), *([f"(exit code {code})"] if code else [])])


def _help(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path, max_content_width=WIDTH, terminal_width=WIDTH, **command.context_settings)
    return f"```text\n{command.get_help(context)}\n```\n"
