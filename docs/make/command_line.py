"""The reference of the command line: what each verb's --help prints, which a test holds the code to."""

from __future__ import annotations

import click

from vit_zoo.cli.commands import vitzoo

WIDTH = 100
INTRODUCTION = """# Command line

<!-- made by docs/make from the code -->

Every verb has `--json` (one document on stdout), `-q`, `-v` and `--debug`. Results go to stdout, everything else to stderr.
`NO_COLOR` is honoured; `vitzoo completion bash` (`zsh`, `fish`) prints a completion script.

| exit code | |
|---|---|
| 0 | ok |
| 1 | a bug of ours |
| 2 | an option, name or path that does not exist, a config that does not validate, a fact that nobody gave |
| 3 | a check failed: parity, accuracy, an axis |
| 4 | an optional dependency is missing; the line that installs it is printed |
| 5 | the Hub, the network, authentication, offline |
| 6 | the target cannot express the model |
| 7 | the content of weights, an artifact or an image is refused or cannot be read |
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
