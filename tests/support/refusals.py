"""What every error about bad input must be."""

from __future__ import annotations

from vit_zoo.errors import VitzooError


def refusal_of(call, *, longest=900):
    """The error of a call, None where it succeeds: one printable line, with the exit code of bad input or refused content."""
    try:
        call()
    except VitzooError as error:
        refused = error
    else:
        return None
    assert refused.code in (2, 6, 7), refused
    assert str(refused).isprintable()
    assert len(str(refused)) < longest
    return refused
