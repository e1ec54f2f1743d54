"""What can go wrong, as one tree: each error knows its exit code and says its piece in one line.

Raise them where the facts are; the command line prints them once, at the edge.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")  # the Hub's; other libraries' errors may hold one


def without_tokens(text: str) -> str:
    """The text with every token of the Hub made unreadable."""
    return TOKEN.sub("hf_***", text)


@dataclass(frozen=True)
class Option:
    """An option that an error refers to: an argument in Python, `force=True`, and a flag on the command line, `--force`."""

    name: str
    value: str = "True"
    flag: str = ""  # where it is not --NAME VALUE

    def __str__(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def on_command_line(self) -> str:
        value = "" if self.value == "True" else f" {self.value}"
        return self.flag or f"--{self.name.replace('_', '-')}{value}"


FORCE = Option("force")


def did_you_mean(name: str, known: list[str]) -> str:
    """Return "; nearest: a, b" with up to three known names similar to `name`, or "" if none is similar."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; nearest: {', '.join(near)}" if near else ""


class VitzooError(Exception):
    """The root of every error this package raises on purpose.

    `message` says what was wanted and what was found, `hint` the next step, `where` the file or name it is about;
    `details` is what a program may want to know beside it. `options` are those that the message or the hint refers to: they
    are written as arguments, and the command line shows them as flags.
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
        """The same error with its options written as flags."""
        error = copy.copy(self)
        for option in self.options:
            error.message = error.message.replace(str(option), option.on_command_line)
            error.hint = error.hint and error.hint.replace(str(option), option.on_command_line)
        return error

    def __str__(self) -> str:
        line = self.message if self.where is None else f"{self.where}: {self.message}"
        line = line if self.hint is None else f"{line} ({self.hint})"
        # Names and file contents are somebody else's text: they must not move the cursor or forge a second line.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class InputError(VitzooError, ValueError):
    """An option, name or path that does not exist, a config that does not validate, a fact nobody gave."""

    code = 2


class CheckFailed(VitzooError):
    """A check ran and said no: parity, accuracy, an axis that is not dynamic."""

    code = 3


class MissingDependency(VitzooError, ImportError):
    """An optional package is not installed; the hint is the line that installs it."""

    code = 4


class HubError(VitzooError, OSError):
    """The Hub, the network, authentication, or being offline; `passing`: the same may succeed a moment later."""

    code = 5
    passing = False


class Unreachable(HubError):
    """The Hub did not answer: what is in the cache may do."""


class NotRepresentable(VitzooError, ValueError):
    """The target format cannot express this model."""

    code = 6


class RefusedContent(VitzooError, ValueError):
    """Weights, an artifact or an image whose content is refused or cannot be read."""

    code = 7


class OtherWeights(RefusedContent):
    """The file beside an artifact is not the one that it was written for: its numbers would be wrong."""


class CannotWrite(VitzooError, OSError):
    """The output cannot be written: no space, no permission, a folder in the way."""

    code = 8
