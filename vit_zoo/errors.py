"""Exception hierarchy: every error is one line of text and has an exit code.

Errors are raised where the facts are known; only the command line's entry point prints them.
"""

from __future__ import annotations

import copy
import difflib
import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")  # an access token of the Hub, which errors of other libraries may contain

LONGEST = 96  # characters of a value in a message


def without_tokens(text: str) -> str:
    """Return the text with every access token of the Hub masked."""
    return TOKEN.sub("hf_***", text)


@dataclass(frozen=True)
class Option:
    """An option that an error refers to: written `force=True` in Python and `--force` on the command line."""

    name: str
    value: str = "True"
    flag: str = ""  # how it is written on the command line, if not as --NAME VALUE

    def __str__(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def on_command_line(self) -> str:
        value = "" if self.value == "True" else f" {self.value}"
        return self.flag or f"--{self.name.replace('_', '-')}{value}"


FORCE = Option("force")


def fact(name: str, value: str) -> Option:
    """Return a fact to be stated about a model: a keyword in Python, and a value of `--set` on the command line."""
    return Option(name, value, f"--set {name}={value}")


def with_flags(text: str, options: Sequence[Option]) -> str:
    """Return a text with its options written as on the command line."""
    flags = {str(option): option.on_command_line for option in options}
    if not flags:
        return text
    longest_first = sorted(flags, key=len, reverse=True)  # one may begin with another
    return re.sub("|".join(map(re.escape, longest_first)), lambda match: flags[match[0]], text)


def notice(line: str, options: Sequence[Option] = ()) -> None:
    """Tell the user what was decided: a warning of the logger `vit_zoo`, which the command line prints on stderr.

    `options` are those that the line refers to.
    """
    import logging

    logging.getLogger("vit_zoo").warning("%s", printable(without_tokens(line)), extra={"options": tuple(options)})


def printable(text: str) -> str:
    """Return the text in one line: names and file contents come from outside, and must not move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Return a value from outside as Python writes it, cut where it is long, for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or nested deeper than the stack
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


DISK_ERRORS = {
    errno.ENOSPC: "no space left: the disk is full",
    errno.EDQUOT: "no space left: the disk quota is used up",
    errno.EIO: "the disk reported an input/output error",
    errno.EROFS: "the disk is read-only",
}


def cause_of(error: OSError) -> str:
    """Return the reason of an error of the operating system in words; those that concern the disk name it."""
    return DISK_ERRORS.get(error.errno or 0) or error.strerror or str(error)


def did_you_mean(name: str, known: list[str]) -> str:
    """Return "; nearest: a, b" with up to three known names similar to `name`, or "" if none is similar."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; nearest: {', '.join(near)}" if near else ""


class VitzooError(Exception):
    """Base class of every error that this package raises on purpose.

    Attributes:
        message: What is wrong: what was expected, and what was found instead.
        where: The file or name that the error is about, or None.
        hint: What to do about it, or None.
        details: More facts for programs, which `--json` prints, or None.
        options: The options that the message or the hint refers to. The text writes them as Python arguments; the command
            line replaces them by flags.
        code: The exit code of the command line.
    """

    code = 1

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        options: Sequence[Option] = (),
    ) -> None:
        message = without_tokens(message)
        super().__init__(message)
        self.message = message
        self.details = details
        self.options = tuple(options)
        self.where = None if where is None else str(where)
        self.hint = hint

    @property
    def kind(self) -> str:
        return type(self).__name__

    def for_command_line(self) -> Self:
        """Return a copy of the error with its options written as flags."""
        error = copy.copy(self)
        error.message = with_flags(error.message, self.options)
        error.hint = error.hint and with_flags(error.hint, self.options)
        return error

    def __str__(self) -> str:
        line = self.message if self.where is None else f"{self.where}: {self.message}"
        line = line if self.hint is None else f"{line} ({self.hint})"
        return printable(line)


class InputError(VitzooError, ValueError):
    """An option, name or path that does not exist, a config that is not valid, or a missing fact."""

    code = 2


class CheckFailed(VitzooError):
    """A check failed: parity, accuracy, or an axis that is not dynamic."""

    code = 3


class MissingDependency(VitzooError, ImportError):
    """An optional package is not installed; the hint is the command that installs it."""

    code = 4


class HubError(VitzooError, OSError):
    """A failure of the Hub, the network or authentication, or offline mode.

    Attributes:
        passing: Whether the same request may succeed a moment later.
    """

    code = 5
    passing = False


class Unreachable(HubError):
    """The Hub did not answer; files in the cache can be used instead."""


class NotRepresentable(VitzooError, ValueError):
    """The target library or format cannot express this model."""

    code = 6


class RefusedContent(VitzooError, ValueError):
    """The content of weights, an exported file or an image is refused or cannot be read."""

    code = 7


class OtherWeights(RefusedContent):
    """The weights file next to an exported file is not the one that it was written for, so its results would be wrong."""


class Stopped(VitzooError):
    """The process that ran a file was ended: it took more time or memory than is allowed, or onnxruntime crashed.

    It is no RefusedContent, which a check of outputs takes as a result and goes on.
    """

    code = 7


class CannotWrite(VitzooError, OSError):
    """The output cannot be written: no space, no permission, or something else in its place."""

    code = 8
