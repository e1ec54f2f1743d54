"""The command-line reference, made from the --help text of each command."""

from __future__ import annotations

import click

from vit_zoo.cli.commands import vitzoo

WIDTH = 100
INTRODUCTION = """# Command line

<!-- made by docs/make from the code -->

Every command has the options `--json` (one document on stdout), `-q`, `-v` and `--debug`. Results are printed on stdout,
everything else on stderr. `NO_COLOR` is respected. `vitzoo completion bash` (`zsh`, `fish`) prints a completion script.

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


def pages() -> dict[str, str]:
    parts = [INTRODUCTION, _help(vitzoo, "vitzoo")]
    for name, command in vitzoo.commands.items():
        parts.append(f"## {name}\n\n" + _help(command, f"vitzoo {name}"))
    return {"reference/cli.md": "\n".join(parts)}


def _help(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path, max_content_width=WIDTH, terminal_width=WIDTH)
    return f"```text\n{command.get_help(context)}\n```\n"
