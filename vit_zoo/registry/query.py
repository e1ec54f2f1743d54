"""Parser of `--where` conditions on the fields of a registry row, such as `params<30M and patch_size==16`.

Grammar, from the lowest precedence to the highest:

    condition   conjunction { "or" conjunction }
    conjunction negation { "and" negation }
    negation    "not" negation | "(" condition ")" | comparison
    comparison  FIELD [ ("<" | "<=" | ">" | ">=" | "==" | "!=") VALUE ]

VALUE is a number (`30M`, `1.5G`, `1e-6`), quoted text, true or false. Only a true-or-false field can stand without a value.
Both sides of an image or patch size are compared: `image_size>=224` holds if height and width are at least 224.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, did_you_mean

Row = Mapping[str, Any]
Predicate = Callable[[Row], bool]

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
    column: int  # position of its first character, from 1


def parse_condition(text: str, fields: Sequence[str]) -> Predicate:
    """Compile a condition to a predicate on rows that have `fields`.

    Raises InputError with the unexpected word and its position.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(f"where: {len(text):,} characters; the limit is {MAX_LENGTH:,}")
    parser = Parser(tokens_of(text), fields)
    predicate = parser.condition()
    if parser.current.kind != "end":
        raise parser.expected("'and', 'or' or the end")
    return predicate


def tokens_of(text: str) -> list[Token]:
    """Split a condition into tokens; the last one has the kind "end"."""
    tokens, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise InputError(f"where: cannot read '{text[start : start + 12]}' at character {start + 1}")
        kind = next(name for name in ("number", "text", "word", "sign") if match[name] is not None)
        word = match[kind]
        tokens.append(Token(kind, word, _value(kind, match), match.start(kind) + 1))
        at = match.end()
    return [*tokens, Token("end", "", None, len(text) + 1)]


def _value(kind: str, match: re.Match[str]) -> Any:
    if kind == "number":
        digits = match["number"].removesuffix(match["scale"]).replace("_", "")
        number = float(digits) * SCALES[match["scale"]]
        return int(number) if number.is_integer() else number
    if kind == "text":
        return match["text"][1:-1]
    return {"true": True, "false": False}.get(match["word"]) if kind == "word" else None


class Parser:
    """Recursive-descent parser: a method for each rule of the grammar, which consumes its tokens."""

    def __init__(self, tokens: Sequence[Token], fields: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self.fields = fields
        self.depth = 0

    @property
    def current(self) -> Token:
        return self.tokens[0]

    def accept(self, *words: str) -> Token | None:
        """Consume and return the current token if it is one of the words, and not quoted text."""
        return self.tokens.pop(0) if self.current.text in words and self.current.kind != "text" else None

    def expected(self, what: str) -> InputError:
        """Return the error for a current token that does not fit the grammar."""
        got = "the end" if self.current.kind == "end" else f"'{self.current.text[:48]}'"
        message = f"where: expected {what} at character {self.current.column}, got {got}"
        return InputError(message, hint="example: params<30M and patch_size==16")

    def condition(self) -> Predicate:
        parts = [self.conjunction()]
        while self.accept("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else lambda row: any(part(row) for part in parts)

    def conjunction(self) -> Predicate:
        parts = [self.negation()]
        while self.accept("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def negation(self) -> Predicate:
        if self.accept("not"):
            inner = self.nested(self.negation)
            return lambda row: not inner(row)
        if self.accept("("):
            inner = self.nested(self.condition)
            if not self.accept(")"):
                raise self.expected("')'")
            return inner
        return self.comparison()

    def nested(self, rule: Callable[[], Predicate]) -> Predicate:
        """Apply a rule one level deeper; the limit keeps Python's own recursion limit out of reach."""
        self.depth += 1
        if self.depth > 50:
            raise InputError("where: nested more than 50 levels deep")
        predicate = rule()
        self.depth -= 1
        return predicate

    def comparison(self) -> Predicate:
        field = self.field()
        sign = self.accept(*OPERATORS)
        if sign is None:
            return lambda row: _truth(field, row[field])
        if self.current.kind not in ("number", "text") and self.current.text not in ("true", "false"):
            raise self.expected("a number, 'text', true or false")
        value = self.tokens.pop(0).value
        return lambda row: _compare(field, sign.text, row[field], value)

    def field(self) -> str:
        if self.current.kind != "word" or self.current.text in ("and", "or", "not", "true", "false"):
            raise self.expected("a field")
        name = self.tokens.pop(0)
        if name.text not in self.fields:
            near = did_you_mean(name.text, list(self.fields))
            raise InputError(f"where: unknown field '{name.text[:48]}' at character {name.column}{near}")
        return name.text


def _truth(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"where: '{field}' is {value!r}, not true or false; compare it with a value")
    return value


def _compare(field: str, sign: str, value: Any, other: Any) -> bool:
    if value is None:  # not known, such as an accuracy that nobody reports
        return sign == "!="
    if isinstance(value, tuple):  # a size: != negates ==, and the other comparisons must hold for both sides
        if sign == "!=":
            return not _compare(field, "==", value, other)
        return all(_compare(field, sign, side, other) for side in value)
    if _kind(value) != _kind(other) and sign not in ("==", "!="):
        raise InputError(f"where: cannot compare '{field}', which is {value!r}, with {other!r} using {sign}")
    equal = _kind(value) == _kind(other) and value == other  # in Python, True == 1
    return equal if sign == "==" else not equal if sign == "!=" else OPERATORS[sign](value, other)


def _kind(value: Any) -> str:
    return "truth" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
