"""Detection of the weight dialect of a set of tensors."""

from __future__ import annotations

from collections.abc import Mapping

from vit_zoo.errors import RefusedContent
from vit_zoo.files import Stored
from vit_zoo.registry.other_architectures import reason_by_keys
from vit_zoo.weights.dialect import Dialect, Shapes
from vit_zoo.weights.dialects import DIALECTS
from vit_zoo.weights.keys import Opened, open_keys
from vit_zoo.weights.translate import mismatch

MAX_UNKNOWN = 0.5  # the share of keys that may be unknown in a file that is taken for a damaged one of a dialect


def detect(tensors: Mapping[str, Stored], *, where: object) -> Dialect:
    """The dialect of a set of tensors; for a damaged set, the most similar one.

    Raises RefusedContent if no dialect is similar enough, or if a tensor of the signature of the most similar one is missing.
    """
    match = next((dialect for dialect in DIALECTS if _matches(dialect, tensors)), None)
    if match is not None and not _unknown(match, tensors):
        return match
    likeness = {dialect.name: _likeness(dialect, tensors) for dialect in DIALECTS}
    likely = max(DIALECTS, key=lambda dialect: likeness[dialect.name])
    if match is not None and likeness[likely.name][0] <= likeness[match.name][0]:
        return match
    unknown = _unknown(likely, tensors)
    if len(unknown) < len(tensors) * MAX_UNKNOWN:
        opened, shapes = opened_by(likely, tensors)
        missing = [opened.key_for(name) for name in likely.signature if name not in shapes]
        if not missing:
            return likely
        reason = reason_by_keys(unknown)
        cause = f"looks like dialect {likely.name} but has no tensor {missing[0]!r}"
        cause = cause if reason is None else f"not a plain ViT: {reason}"
        raise RefusedContent(cause, where=where, details=mismatch(missing=missing, unexpected=unknown))
    if match is not None:
        return match
    reason = reason_by_keys(tensors)
    first = f", first {next(iter(tensors))!r}" if tensors else ""
    details = {"dialects": [dialect.name for dialect in DIALECTS]}
    cause = f"{len(tensors)} tensors{first}: not a ViT of a known dialect"
    cause = cause if reason is None else f"not a plain ViT: {reason}"
    raise RefusedContent(cause, where=where, details=details)


def _matches(dialect: Dialect, tensors: Mapping[str, Stored]) -> bool:
    if not any(key.endswith(dialect.signature[0]) for key in tensors):  # rules out most dialects without naming all keys
        return False
    _, shapes = opened_by(dialect, tensors)
    return all(name in shapes for name in dialect.signature) and dialect.matches_shapes(shapes)


def _unknown(dialect: Dialect, tensors: Mapping[str, Stored]) -> list[str]:
    opened, _ = opened_by(dialect, tensors)
    return opened.unknown()


def _likeness(dialect: Dialect, tensors: Mapping[str, Stored]) -> tuple[int, int, int]:
    """The similarity of a damaged file to a dialect, for comparison.

    Fewest unknown keys first, then fewest missing keys of the signature, then fewest missing tensors outside the blocks.
    """
    opened, shapes = opened_by(dialect, tensors)
    unknown = len(opened.unknown())
    if not dialect.matches_shapes(shapes):  # the same keys, another dialect
        unknown += len(opened.names) + len(opened.outside)
    missing = sum(name not in shapes for name in dialect.signature)
    single = {theirs for rule in dialect.rules for theirs in rule.theirs if "{i}" not in theirs}
    return -unknown, -missing, -len(single - set(shapes))


def opened_by(dialect: Dialect, tensors: Mapping[str, Stored]) -> tuple[Opened, Shapes]:
    """The keys, and the shapes of the model's tensors by the dialect's names."""
    prepared = dialect.prepare(dict(tensors))
    opened = open_keys(dialect, prepared)
    return opened, {name: prepared[key].shape for key, name in opened.names.items()}
