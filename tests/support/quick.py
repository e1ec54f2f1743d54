"""Test files of the quick set, `pytest -m quick`: some of each folder, none of which takes more than a few seconds."""

QUICK = frozenset({
    "cli/test_option_errors.py",
})  # fmt: skip
