"""Tests of parity reports as files: every value in one is parsed, and a damaged one is no report."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from support.paths import TESTS
from vit_zoo.parity.report import ParityReport, read_report
from vit_zoo.publishing.benchmark import Record

FOLDER = TESTS / "data" / "version_0_1"
NAME = "inline.onnx"
REPORT = json.loads((FOLDER / f"{NAME}.parity.json").read_text())
OTHERS = (None, True, 0, -1, 1.5, 10**400, 1e308, "", "x", "x" * 20_000, [], [[]], [1], ["x"], {}, {"x": 1}, "\x1b[31m")


@pytest.fixture
def file(folder):
    shutil.copy(FOLDER / NAME, folder)
    return folder / NAME


def places(value, path=()):
    """Every place in a document, by the keys that lead to it."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def replaced(document, path, value):
    """A copy of the document with another value in a place."""
    if not path:
        return value
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def check(file, cli):
    """`show` of the file and of its report end well, or in one line."""
    for name in (file.name, f"{file.name}.parity.json"):
        code, out, err = cli("show", name)
        assert code in (0, 2, 7), err
        assert len([line for line in err.splitlines() if line.startswith("vitzoo: error")]) == (code != 0)
        assert "\x1b" not in out + err
        assert "unexpected" not in err


@pytest.mark.parametrize("path", [*places(REPORT)], ids=lambda path: ".".join(map(str, path)) or "document")
def test_every_value_is_parsed(path, file, cli):
    for value in OTHERS:
        text = json.dumps(replaced(REPORT, path, value))
        file.with_name(f"{NAME}.parity.json").write_text(text)
        report = read_report(file)
        if report is not None:
            assert report.summary().strip() or report.faults
            assert repr(report)
            assert report._repr_html_()
    check(file, cli)


@pytest.mark.parametrize(
    "changes",
    [
        {"comparisons": []},
        {"comparisons": [], "agreements": [], "ok": False, "verdict": "failed", "faults": []},
        {"verdict": "approximate", "agreements": []},
        {"comparisons": [{**REPORT["comparisons"][0], "relative": None}]},
        {"comparisons": [{**REPORT["comparisons"][0], "allowed": 0}]},
        {"comparisons": [{**REPORT["comparisons"][0], "output": "x" * 10**6}, *REPORT["comparisons"] * 1000]},
        {"faults": ["x"] * 10**5},
        {"schema_version": 3},
    ],
)
def test_reports_that_no_check_writes(changes, file, cli):
    file.with_name(f"{NAME}.parity.json").write_text(json.dumps({**REPORT, **changes}))
    start = time.process_time()
    check(file, cli)
    report = read_report(file)
    assert report is None or report.summary()
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"ok": NaN}', '{"ok": true, "ok": true}', '{"a": ' + "[" * 10**5, "\x00"])
def test_a_file_that_is_no_report(text, file, cli):
    file.with_name(f"{NAME}.parity.json").write_text(text)
    assert read_report(file) is None
    code, out, err = cli("show", NAME)
    assert code == 0, err
    assert "unknown: the parity report next to the file is" in out
    check(file, cli)


def test_a_report_by_the_name_of_its_suffix_alone(folder, cli):
    shutil.copy(FOLDER / f"{NAME}.parity.json", ".parity.json")
    code, out, err = cli("show", ".parity.json")
    assert code == 0, err
    assert "is not here" in out


def test_a_pass_without_a_comparison_is_no_pass():
    assert ParityReport.read(REPORT).ok
    with pytest.raises(ValueError, match="nothing was compared"):
        ParityReport.read({**REPORT, "comparisons": []})


def test_measurements_are_parsed():
    good = {"sha256": "x", "bytes": 3, "milliseconds": 1.5, "runs": 3, "machine": "m", "onnxruntime": "1"}
    assert Record.read(json.dumps({"files": {"a": good}})).files["a"].milliseconds == 1.5
    for key in good:
        for value in (True, -1, 10**400, [], {}, "x" * 20_000, "y"):
            record = Record.read(json.dumps({"files": {"a": {**good, key: value}}}))
            assert len(record.dumps()) < 30_000
    for text in ("", "{", '{"files": {"a": {"milliseconds": NaN}}}', '{"files": ' + "[" * 10**5, "[]", '{"files": []}'):
        assert Record.read(text) == Record()
