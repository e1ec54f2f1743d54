"""Entry point of the command line: turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import sys
import traceback
from typing import Any

import click

from vit_zoo.cli import signals
from vit_zoo.cli.dependencies import install_command
from vit_zoo.errors import CannotWrite, InputError, MissingDependency, RefusedContent, VitzooError, cause_of, without_tokens

MAX_LINE = 1000  # characters of an error: a message may quote a whole file
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def run_process() -> int:
    """Run `vitzoo` with the arguments of this process and return the exit code."""
    if platform.machine() in ("x86_64", "AMD64"):
        # numpy's BLAS starts a thread per core on import, which takes 50 ms and is not needed here; torch has its own BLAS
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names and labels may contain characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    return run(sys.argv[1:])


def run(arguments: list[str]) -> int:
    """Run `vitzoo` with these arguments and return the exit code; print any error as one line on stderr."""
    try:
        from vit_zoo.cli.commands import vitzoo

        result = vitzoo.main(arguments, prog_name="vitzoo", standalone_mode=False)
        if sys.stdout is not None:  # the parent process may have closed it
            sys.stdout.flush()
        code = result if isinstance(result, int) else 0
        return code if signals.received() is None else _signalled()
    except VitzooError as error:
        return _report(arguments, error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _report(arguments, InputError(" ".join(error.format_message().split()), hint=_help(error)), kind="UsageError")
    except (KeyboardInterrupt, signals.Terminated, click.Abort):
        return _signalled()
    except BrokenPipeError:
        return _discard_stdout()
    except SystemExit:  # click raises it after printing completions, and when the reader of stdout is gone
        if "_VITZOO_COMPLETE" in os.environ:
            raise
        return _discard_stdout()
    except OSError as error:  # not handled elsewhere: a name too long, a folder without permission, stdout on a full disk
        text = cause_of(error)
        text = text if error.filename is None else f"{os.fsdecode(error.filename)}: {text}"
        if error.errno in NO_SPACE:
            _discard_stdout()
            return _report(arguments, CannotWrite(text))
        return _report(arguments, InputError(text) if error.errno in NOT_FOUND else RefusedContent(text))
    except MemoryError:
        return _report(arguments, CannotWrite("not enough memory"), kind="MemoryError")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("vit_zoo"):
            text = f"the package {error.name} is not installed"
            return _report(arguments, MissingDependency(text, hint=install_command(error.name.partition(".")[0])))
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's MemoryError
            return _report(arguments, CannotWrite("not enough memory"), kind="MemoryError")
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _report(arguments, VitzooError(text, hint="this is a bug in vitzoo; --debug prints the traceback"), kind="Bug")


def _report(arguments: list[str], error: VitzooError, *, kind: str | None = None) -> int:
    if signals.received() is not None:  # a library has made another exception of it
        return _signalled()
    if "--debug" in arguments:
        click.echo(without_tokens(traceback.format_exc()), err=True)
    error = error.for_command_line()
    line = str(error)
    if len(line) > MAX_LINE:  # the cause is at the end
        line = f"{line[: MAX_LINE // 2]}...{line[-MAX_LINE // 2 :]}"
    click.echo(f"vitzoo: error: {line}", err=True)
    if error.details and {"-v", "--verbose"} & set(arguments):
        from vit_zoo.weights.translate import mismatch_lines

        for line in mismatch_lines(error.details):
            click.echo(line, err=True)
    if "--json" in arguments:
        message = error.message if error.where is None else f"{error.where}: {error.message}"
        document = {"code": error.code, "kind": kind or error.kind, "message": message, "hint": error.hint}
        document |= error.details or {}
        try:
            click.echo(json.dumps(document))
        except OSError:
            _discard_stdout()
    return error.code


def _signalled() -> int:
    """Print that the command was interrupted, and return the exit code of the signal; that of Ctrl-C by default."""
    code, name = signals.received() or (130, "interrupted")
    if signals.received() is None:
        click.echo(f"vitzoo: {name}", err=True)
    signals.tell()
    return code


def _discard_stdout() -> int:
    """Redirect stdout to the null device: its reader is gone, and flushing it at exit would print an error."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _help(error: click.ClickException) -> str | None:
    context: Any = getattr(error, "ctx", None)
    return None if context is None else f"see `{context.command_path} --help`"
