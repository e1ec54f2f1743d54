"""Where errors become one line and an exit code, and signals a clean end."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import click

from vit_zoo.errors import VitzooError


class Terminated(BaseException):
    """SIGTERM, as an exception, so that temporary files are removed on the way out."""


def main() -> NoReturn:
    """Run `vitzoo` with the process's arguments and exit with its code."""
    from vit_zoo.cli.commands import vitzoo

    signal.signal(signal.SIGTERM, _terminate)
    arguments = sys.argv[1:]
    sys.exit(_run(vitzoo, arguments))


def _run(command: click.Command, arguments: list[str]) -> int:
    try:
        result = command.main(arguments, prog_name="vitzoo", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except VitzooError as error:
        if "--debug" in arguments:
            raise
        return _report(arguments, error.code, error.kind, str(error), error.message, error.hint)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        text = " ".join(error.format_message().split())
        return _report(arguments, 2, "UsageError", text, text, _help(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("vitzoo: interrupted", err=True)
        return 130
    except Terminated:
        click.echo("vitzoo: terminated", err=True)
        return 143
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 0
    except MemoryError:
        return _report(arguments, 8, "MemoryError", "not enough memory", "not enough memory", None)
    except ModuleNotFoundError as error:
        if "--debug" in arguments or error.name is None or error.name.startswith("vit_zoo"):
            raise
        text = f"this needs {error.name}, which is not installed (pip install vitzoo)"
        return _report(arguments, 4, "MissingDependency", text, f"this needs {error.name}", "pip install vitzoo")
    except Exception as error:
        if "--debug" in arguments:
            raise
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]} (a bug: --debug shows where)"
        return _report(arguments, 1, "Bug", text, str(error), None)


def _report(arguments: list[str], code: int, kind: str, line: str, message: str, hint: str | None) -> int:
    click.echo(f"vitzoo: error: {line}", err=True)
    if "--json" in arguments:
        import json

        click.echo(json.dumps({"code": code, "kind": kind, "message": message, "hint": hint}))
    return code


def _help(error: click.ClickException) -> str | None:
    context: Any = getattr(error, "ctx", None)
    return None if context is None else f"see `{context.command_path} --help`"


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated
