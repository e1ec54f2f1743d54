"""Tests of the shipped `vit_digits` on digits drawn by hand, prepared as the live page prepares them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

import vit_zoo
from support.paths import NODE, ROOT, TESTS
from support.requirements import required

HANDS = json.loads((TESTS / "data" / "drawn_digits.json").read_text())  # by hand and digit: strokes of points, y downwards
DRAWINGS = [(hand, int(digit), strokes) for hand, digits in HANDS.items() for digit, strokes in digits.items()]
LABELS = np.array([digit for _, digit, _ in DRAWINGS])
GOAL = 0.95


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    (done,) = vit_zoo.export("vit_digits", out=tmp_path_factory.mktemp("digits") / "vit_digits.onnx", verify=False)
    return done.path


@pytest.fixture(scope="module")
def drawn():
    spec = importlib.util.spec_from_file_location("drawn", ROOT / "zoo" / "vit_digits" / "drawn.py")
    module = sys.modules["drawn"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_cells(drawings):
    """The cells that the page's script makes of drawings, 0 to 1 (n 64)."""
    command = [required("node"), NODE / "cells.mjs"]
    done = subprocess.run(command, input=json.dumps(drawings), capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout))


def pixels(cells):
    """The model's input (n 3 8 8)."""
    grey = (np.asarray(cells, dtype=np.float32).reshape(-1, 1, 8, 8) - 0.5) / 0.5
    return np.repeat(grey, 3, axis=1)


def changed(strokes, shift=(0.0, 0.0), scale=1.0, slant=0.0, shake=None):
    """Strokes moved, scaled and slanted, each point shaken by about 2 % of the drawing's height if there is a generator."""
    points = np.concatenate([np.array(stroke, float) for stroke in strokes])
    height = np.ptp(points[:, 1])
    lines = [np.array(stroke, float) for stroke in strokes]
    if shake is not None:
        lines = [line + shake.normal(0, 0.02 * height, line.shape) for line in lines]
    return [(line @ np.array([[1, 0], [-slant, 1]]) * scale + shift).tolist() for line in lines]


def test_three_hands_write_every_digit():
    assert len(HANDS) == 3
    assert all(list(digits) == list("0123456789") for digits in HANDS.values())


def test_the_page_and_the_training_prepare_drawings_alike(drawn):
    drawings = [strokes for _, _, strokes in DRAWINGS]
    ours = [drawn.cells([np.array(stroke, float) for stroke in strokes]) for strokes in drawings]
    np.testing.assert_array_equal(page_cells(drawings), np.reshape(ours, (len(ours), -1)) / 16)


def test_place_and_size_of_a_drawing_do_not_matter():
    drawings = [strokes for _, _, strokes in DRAWINGS]
    moved = [changed(strokes, shift=(37.0, -20.0), scale=0.5) for strokes in drawings]
    assert np.abs(page_cells(drawings) - page_cells(moved)).max() <= 1 / 16  # a pixel at the edge of the pen


def test_a_click_is_a_drawing():
    (cells,) = page_cells([[[[100, 100]]]])
    assert cells.sum() * 16 >= 311


def test_the_exported_file_reads_drawn_digits_in_a_browser_runtime(exported, tmp_path):
    """All 30 digits of three hands with the page's own preparation and runtime."""
    required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-web")
    images = pixels(page_cells([strokes for _, _, strokes in DRAWINGS]))
    given, got = tmp_path / "input.bin", tmp_path / "output.bin"
    images.tofile(given)
    job = {"file": exported, "input": given, "type": "float32", "dims": images.shape, "output": got}
    subprocess.run([required("node"), "run.mjs"], input=json.dumps([job], default=str), text=True, cwd=NODE, check=True)
    predictions = np.fromfile(got, np.float32).reshape(len(images), 10).argmax(1)
    wrong = [
        f"{hand} {digit} as {label}" for (hand, digit, _), label in zip(DRAWINGS, predictions, strict=True) if digit != label
    ]
    assert len(wrong) <= (1 - GOAL) * len(DRAWINGS), wrong


@pytest.mark.parametrize("slant", [-0.15, 0.0, 0.3])
def test_shaky_and_slanted_digits_are_read(exported, drawn, slant):
    random = np.random.default_rng(7)
    drawings = [changed(strokes, slant=slant, shake=random) for _, _, strokes in DRAWINGS for _ in range(5)]
    images = pixels([drawn.cells([np.array(stroke) for stroke in strokes]) / 16 for strokes in drawings])
    session = onnxruntime.InferenceSession(exported)
    predictions = session.run(None, {session.get_inputs()[0].name: images})[0].argmax(1)
    assert (predictions == np.repeat(LABELS, 5)).mean() >= GOAL
