"""Tests of the fuzz harness: inputs of former faults are refused or read, and the same seed gives the same cases."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fuzz.case import COMMAND, Case, mutated
from fuzz.command_line import results, write_base
from fuzz.mutations import of_json
from fuzz.onnx_mutations import of_fields, of_wire
from fuzz.readers import READERS, make_case

INPUTS = Path(__file__).parent / "inputs"
SAVED = sorted(path.parent for path in INPUTS.rglob(COMMAND))
LARGEST = 200_000  # bytes of all saved inputs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    write_base(folder)
    return folder


def test_inputs_of_former_faults(base):
    """All in one worker, which is restarted if it dies."""
    assert SAVED
    faults, done = [], 0
    while done < len(SAVED):
        for result in results({"folders": [str(folder) for folder in SAVED[done:]], "base": str(base)}):
            if result["kind"] not in ("ok", "refused"):
                faults.append(f"{SAVED[done].name}: {result['kind']} {result['error']} at {result['place']}: {result['text']}")
            done += 1
    assert not faults, "\n".join(faults)


def test_the_saved_inputs_are_small():
    assert sum(path.stat().st_size for path in INPUTS.rglob("*") if path.is_file()) < LARGEST


@pytest.mark.parametrize("reader", READERS)
def test_the_same_seed_gives_the_same_cases(reader, base, tmp_path):
    cases = [make_case(reader, f"5:{number}", base) for number in range(20)]
    assert cases == [make_case(reader, f"5:{number}", base) for number in range(20)]
    assert len({str(case) for case in cases}) > 10
    cases[0].save(tmp_path / "saved")
    assert Case.load(tmp_path / "saved") == cases[0]


@pytest.mark.parametrize("mutation", [of_json, of_fields, of_wire])
def test_mutations_can_be_left_out_one_by_one(mutation, base):
    data = (base / ("hf/config.json" if mutation is of_json else "mini.onnx")).read_bytes()
    assert mutated(data, Random(1), [mutation], set()) == data
    assert mutated(data, Random(1), [mutation], None) == mutated(data, Random(1), [mutation], {0, 1, 2})
