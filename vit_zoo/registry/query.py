"""What `--where` says: a condition on the fields of a row, such as `params<30M and patch_size==16`.

condition: `or` of `and` of `not` of a comparison, a bare true-or-false field, or a condition in parentheses.
comparison: FIELD (`<` `<=` `>` `>=` `==` `!=`) VALUE. Values are numbers (`30M`, `1.5G`, `1e-6`), 'text', true, false.
A size is compared by both of its sides, so `image_size>=224` holds if height and width do.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, did_you_mean

Row = Mapping[str, Any]
Holds = Callable[[Row], bool]

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d{1,2})?(?P<scale>[KMG]?)(?!\w))
    |(?P<text>'[^']*'|"[^"]*")|(?P<word>[A-Za-z_]\w*)|(?P<sign><=|>=|==|!=|<|>|\(|\)))""",
    re.VERBOSE,
)
MAX_LENGTH = 1000


@dataclass(frozen=True)
class Token:
    kind: str  # number, text, word, sign, end
    text: str
    value: Any
    at: int  # the character that it starts at, from 1


def parse_condition(text: str, fields: Sequence[str]) -> Holds:
    """The condition as a function of a row that has `fields`. Raises InputError with the offending word and its place."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"where: {len(text):,} characters; at most {MAX_LENGTH:,}")
    parser = Parser(tokens_of(text), fields)
    holds = parser.any_of()
    if parser.here.kind != "end":
        raise parser.unexpected("'and', 'or' or the end")
    return holds


def tokens_of(text: str) -> list[Token]:
    found, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise InputError(f"where: cannot read '{text[start : start + 12]}' at character {start + 1}")
        kind = next(name for name in ("number", "text", "word", "sign") if match[name] is not None)
        word = match[kind]
        found.append(Token(kind, word, _value(kind, match), match.start(kind) + 1))
        at = match.end()
    return [*found, Token("end", "", None, len(text) + 1)]


def _value(kind: str, match: re.Match[str]) -> Any:
    if kind == "number":
        digits = match["number"].removesuffix(match["scale"]).replace("_", "")
        number = float(digits) * SCALES[match["scale"]]
        return int(number) if number.is_integer() else number
    if kind == "text":
        return match["text"][1:-1]
    return {"true": True, "false": False}.get(match["word"]) if kind == "word" else None


class Parser:
    """Recursive descent over the tokens; each method reads what its name says."""

    def __init__(self, tokens: Sequence[Token], fields: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self.fields = fields
        self.depth = 0

    @property
    def here(self) -> Token:
        return self.tokens[0]

    def took(self, *words: str) -> Token | None:
        return self.tokens.pop(0) if self.here.text in words and self.here.kind != "text" else None

    def unexpected(self, wanted: str) -> InputError:
        found = "it ends" if self.here.kind == "end" else f"got '{self.here.text[:48]}'"
        return InputError(f"where: {found} at character {self.here.at}, {wanted} is wanted", hint="params<30M and patch_size==16")

    def any_of(self) -> Holds:
        parts = [self.all_of()]
        while self.took("or"):
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def all_of(self) -> Holds:
        parts = [self.negated()]
        while self.took("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def negated(self) -> Holds:
        if self.took("not"):
            inner = self.deeper(self.negated)
            return lambda row: not inner(row)
        if self.took("("):
            inner = self.deeper(self.any_of)
            if not self.took(")"):
                raise self.unexpected("')'")
            return inner
        return self.comparison()

    def deeper(self, read: Callable[[], Holds]) -> Holds:
        self.depth += 1
        if self.depth > 50:
            raise InputError("where: nested more than 50 deep")
        found = read()
        self.depth -= 1
        return found

    def comparison(self) -> Holds:
        field = self.field()
        sign = self.took(*OPERATORS)
        if sign is None:
            return lambda row: _truth(field, row[field])
        if self.here.kind not in ("number", "text") and self.here.text not in ("true", "false"):
            raise self.unexpected("a number, 'text', true or false")
        value = self.tokens.pop(0).value
        return lambda row: _compare(field, sign.text, row[field], value)

    def field(self) -> str:
        if self.here.kind != "word" or self.here.text in ("and", "or", "not", "true", "false"):
            raise self.unexpected("a field")
        name = self.tokens.pop(0)
        if name.text not in self.fields:
            near = did_you_mean(name.text, list(self.fields))
            raise InputError(f"where: unknown field '{name.text[:48]}' at character {name.at}{near}")
        return name.text


def _truth(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"where: '{field}' is not true or false but {value!r}: compare it")
    return value


def _compare(field: str, sign: str, value: Any, wanted: Any) -> bool:
    if isinstance(value, tuple):  # a size: != is the opposite of ==, the others hold for both sides
        if sign == "!=":
            return not _compare(field, "==", value, wanted)
        return all(_compare(field, sign, side, wanted) for side in value)
    if _kind(value) != _kind(wanted) and sign not in ("==", "!="):
        raise InputError(f"where: '{field}' is {value!r}, which {wanted!r} cannot be compared with by {sign}")
    equal = _kind(value) == _kind(wanted) and value == wanted  # true is no 1
    return equal if sign == "==" else not equal if sign == "!=" else OPERATORS[sign](value, wanted)


def _kind(value: Any) -> str:
    return "truth" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
