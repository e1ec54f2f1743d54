"""Tests of `embed`: values against onnxruntime and scikit-learn, what is written, and resuming after every interruption."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file
from sklearn.preprocessing import normalize

import vit_zoo
from support.disks import small_disk_at
from vit_zoo.errors import CannotWrite, InputError, RefusedContent
from vit_zoo.files import read_image, sha256_of
from vit_zoo.files.file_set import FileSet
from vit_zoo.files.partial import Partial
from vit_zoo.inference.worker import ImageWorker
from vit_zoo.registry.catalog import zoo_folder

DIGITS = zoo_folder() / "vit_digits" / "held_out"
COUNT = 360


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an exported file, and one with int8 whose rounding depends on the batch."""
    folder = tmp_path_factory.mktemp("embed")
    vit_zoo.export("vit_digits", out=folder / "digits.onnx", outputs=["pooler_output", "last_hidden_state"], verify="quick")
    (one,) = vit_zoo.export("vit_digits", out=folder, outputs=["pooler_output"], precision="int8-dynamic", verify=False)
    one.path.rename(folder / "dynamic.onnx")
    return folder


@pytest.fixture
def place(made, folder, monkeypatch):
    """An empty current folder with these files, on a machine with one core, unless a test states the number of workers."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    for path in made.glob("*.onnx"):
        shutil.copy(path, folder)
    return folder


def reference(artifact, output, files, batch=8):
    """The output of onnxruntime itself, for batches in the order of the files."""
    preprocess = vit_zoo.open(artifact, isolated=False).config.known_preprocess()
    session = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    images = [preprocess(read_image(Path(file))) for file in files]
    batches = [np.stack(images[i : i + batch]) for i in range(0, len(images), batch)]
    return np.concatenate([session.run([output], {"pixel_values": x})[0] for x in batches])


def test_values_and_files(place):
    """All formats have the values of onnxruntime, bit for bit, and path and size of each image."""
    files = [str(path) for path in sorted(DIGITS.glob("*.png"))]
    expected = reference("digits.onnx", "pooler_output", files)
    for suffix in ("parquet", "npy", "safetensors"):
        done = vit_zoo.embed("digits.onnx", DIGITS, f"features.{suffix}", workers=2)
        assert (done.images, done.width, done.failed, done.failures) == (COUNT, 64, 0, None)
        assert done.output == "pooler_output"
        np.testing.assert_array_equal(done.features(), expected)
        frame = done.to_pandas()
        assert frame["path"].tolist() == files
        assert (frame[["height", "width"]] == 8).all(axis=None)
        np.testing.assert_array_equal(np.stack(frame["features"]), expected)
        assert str(done) == f"features.{suffix}: pooler_output of 360 images, float32 [360, 64]"
        for path in (done.path, done.table):
            if path is not None:
                path.rename(f"{suffix}{path.suffix}")
    assert sorted(path.name for path in place.iterdir()) == [
        "digits.onnx", "dynamic.onnx", "npy.csv", "npy.npy", "parquet.parquet", "safetensors.csv", "safetensors.safetensors",
    ]  # fmt: skip
    np.testing.assert_array_equal(np.load("npy.npy"), expected)
    np.testing.assert_array_equal(load_file("safetensors.safetensors")["features"], expected)
    table = pq.read_table("parquet.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "int32", "int32", "fixed_size_list<element: float>[64]"]
    run = json.loads(table.schema.metadata[b"vitzoo"])
    assert run["artifact"] == {"name": "digits.onnx", "sha256": [sha256_of(place / "digits.onnx")]}
    assert (run["output"], run["normalised"], run["dtype"], run["rows"]) == ("pooler_output", False, "float32", COUNT)
    assert run["versions"]["vitzoo"] == vit_zoo.__version__
    assert vit_zoo.open("digits.onnx").config.known_preprocess().model_dump(mode="json") == run["preprocess"]
    assert pq.ParquetFile("parquet.parquet").num_row_groups == -(-COUNT // 32)


def test_normalised_and_rounded(place):
    files = sorted(DIGITS.glob("*.png"))[:20]
    mean = reference("digits.onnx", "last_hidden_state", files)[:, 1:].astype("f8").mean(axis=1).astype("f4")
    for suffix in ("parquet", "npy", "safetensors"):
        done = vit_zoo.embed(
            "digits.onnx", files, f"a.{suffix}", output="patch_mean", normalise=True, dtype="float16", force=True
        )
        assert done.output == "last_hidden_state:patch_mean"
        x = np.stack(done.to_pandas()["features"])
        assert x.dtype == np.float16
        np.testing.assert_array_equal(x, normalize(mean.astype("f8")).astype("f2"))
    assert "float16 [20, 64], normalised" in str(done)


def test_batches_do_not_depend_on_workers(place):
    """The ranges of a dynamic int8 file are those of a batch."""
    files = sorted(DIGITS.glob("*.png"))[:100]
    one = vit_zoo.embed("dynamic.onnx", files, "one.npy", workers=1).features()
    three = vit_zoo.embed("dynamic.onnx", files, "three.npy", workers=3).features()
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(one[:96], reference("dynamic.onnx", "pooler_output", files[:96]))
    assert (one != vit_zoo.embed("dynamic.onnx", files, "fives.npy", batch=5).features()).any()


@pytest.fixture
def mixed(place):
    """Images of which some cannot be read, and sizes that differ."""
    generator = np.random.default_rng(0)
    (place / "mixed").mkdir()
    for i in range(70):
        pixels = generator.integers(0, 256, (6 + i % 5, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "mixed" / f"{i:02}.png")
    for i in (0, 33, 34, 69):
        (place / "mixed" / f"{i:02}.png").write_bytes(b"\x89PNG no more")
    lines = ["path,class", *(f"mixed/{i:02}.png,x" for i in range(70)), '"mixed/not, there.png",y']
    (place / "table.csv").write_text("\n".join(lines) + "\n")
    return place


def test_images_that_cannot_be_read(mixed, cli):
    code, out, err = cli("embed", "digits.onnx", "table.csv", "-o", "features.npy", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "path": "features.npy", "images": 66, "width": 64, "dtype": "float32", "output": "pooler_output", "normalised": False,
        "failed": 5, "failures": "features.failures.csv", "table": "features.csv",
    }  # fmt: skip
    with (mixed / "features.failures.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "reason"]
    assert [name for name, _ in rows] == [*(f"mixed/{i:02}.png" for i in (0, 33, 34, 69)), "mixed/not, there.png"]
    assert rows[0][1].startswith("cannot be read as an image")
    assert rows[-1][1] == "no such file or folder"
    table = pd.read_csv("features.csv")
    readable = [i for i in range(70) if i not in (0, 33, 34, 69)]
    assert table["path"].tolist() == [f"mixed/{i:02}.png" for i in readable]
    assert table[["height", "width"]].values.tolist() == [[6 + i % 5, 9] for i in readable]
    parts = [[i for i in readable if i // 32 == part] for part in range(3)]  # batches begin with each chunk
    expected = [reference("digits.onnx", "pooler_output", [f"mixed/{i:02}.png" for i in part]) for part in parts]
    np.testing.assert_array_equal(np.load("features.npy"), np.concatenate(expected))
    for i in (0, 33, 34, 69):
        (mixed / "mixed" / f"{i:02}.png").unlink()
    code, out, err = cli("embed", "digits.onnx", "mixed", "-o", "features.npy", "--force")
    assert (code, err) == (0, "")
    assert not (mixed / "features.failures.csv").exists()  # those of the earlier file


def test_no_image_can_be_read(mixed, cli):
    (mixed / "bad.txt").write_text("mixed/00.png\ngone.png\n")
    code, _, err = cli("embed", "digits.onnx", "bad.txt", "-o", "features.npy")
    assert code == 7
    assert "features.npy: none of 2 images can be read; the first: cannot be read as an image" in err
    assert not list(mixed.glob("features*"))


def test_values_that_are_not_finite(place, monkeypatch):
    """Images whose outputs are not finite, or too large for float16, are failures, and the others are not affected."""
    files = sorted(DIGITS.glob("*.png"))[:10]
    right = vit_zoo.embed("digits.onnx", files, "right.npy").features()
    run = ImageWorker._run

    def spoilt(self, pixels):
        results = run(self, pixels)
        if len(pixels) == 8:
            results["pooler_output"][2], results["pooler_output"][5, 0] = np.nan, 1e6
        return results

    monkeypatch.setattr(ImageWorker, "_run", spoilt)
    done = vit_zoo.embed("digits.onnx", files, "a.npy", dtype="float16")
    np.testing.assert_array_equal(done.features(), right[[0, 1, 3, 4, 6, 7, 8, 9]].astype("f2"))
    reasons = ["the model's outputs are not finite", "its features are too large for float16"]
    assert pd.read_csv(done.failures).values.tolist() == [
        [files[i].as_posix(), why] for i, why in zip((2, 5), reasons, strict=True)
    ]


class Killed(BaseException):
    """The end of a process, as far as the files are concerned."""


def states(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_interrupted_before_each_part_and_at_the_end(mixed, monkeypatch, suffix, caplog):
    """Every part is computed once, and the files are those of a run that was not interrupted."""
    vit_zoo.embed("dynamic.onnx", "table.csv", f"whole.{suffix}")
    expected = {name.removeprefix("whole"): data for name, data in states(mixed).items() if name.startswith("whole")}
    write, commit, discard = Partial.write_part, FileSet.commit, Partial.discard
    written = []

    def write_one(self, number, content):
        if len(written) % 2:
            written.append(None)
            raise Killed
        written.append(number)
        write(self, number, content)

    def killed(self):
        raise Killed

    def killed_after(self):
        commit(self)
        raise Killed

    def resume(**patches):
        with monkeypatch.context() as patch:
            for name, function in patches.items():
                patch.setattr(FileSet if name == "commit" else Partial, name, function)
            with pytest.raises(Killed):
                vit_zoo.embed("dynamic.onnx", ["table.csv"], f"killed.{suffix}", workers=1)

    for _ in range(2):
        resume(write_part=write_one)
    assert written == [0, None, 1, None]
    resume(write_part=write_one, commit=killed)
    assert written == [0, None, 1, None, 2]
    assert "resuming after 64 of 71 images" in caplog.messages[-1]
    assert not (mixed / f"killed.{suffix}").exists()
    resume(commit=killed_after)
    assert (mixed / "killed.partial").exists() is False
    assert (mixed / f"killed.{suffix}").exists()  # with its name, and yet the folder of parts is there
    resume(discard=killed)
    done = vit_zoo.embed("dynamic.onnx", "table.csv", f"killed.{suffix}")
    assert (done.images, done.failed) == (66, 5)
    assert {name.removeprefix("killed"): data for name, data in states(mixed).items() if name.startswith("killed")} == expected
    assert not list(mixed.glob("*.partial"))
    assert not list(mixed.glob(".*"))
    assert discard is Partial.discard
    with pytest.raises(CannotWrite, match="already exists"):
        vit_zoo.embed("dynamic.onnx", "table.csv", f"killed.{suffix}")


def test_kill_9_of_the_process(place):
    """The process is killed as soon as a part is there, and its child processes end too."""
    command = [sys.executable, "-m", "vit_zoo.cli", "embed", "digits.onnx", str(DIGITS), "--workers", "2", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "killed.parquet"], env=environment)
    while not list(place.glob("killed.parquet.partial/*.part")):
        time.sleep(0.002)
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert subprocess.run([*command, "killed.parquet"], env=environment, capture_output=True).returncode == 0
    vit_zoo.embed("digits.onnx", DIGITS, "whole.parquet")
    assert (place / "killed.parquet").read_bytes() == (place / "whole.parquet").read_bytes()


def test_ctrl_c(place):
    """The command ends with 130, its parts stay, and nothing temporary does."""
    command = [sys.executable, "-m", "vit_zoo.cli", "embed", "digits.onnx", str(DIGITS), "--workers", "2", "-o", "a.npy"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while len(list(place.glob("a.npy.partial/*.part"))) < 2:  # the last one is not kept if the signal meets its rename
        time.sleep(0.002)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err.strip()) == (130, "vitzoo: interrupted")
    assert not list(place.rglob("*.tmp"))
    done = len(list(place.glob("a.npy.partial/*.part")))
    assert done
    assert vit_zoo.embed("digits.onnx", DIGITS, "a.npy").images == COUNT


def interrupt(out, images, monkeypatch, **options):
    """Leave a partial result with one part."""
    write = Partial.write_part

    def once(self, number, content):
        write(self, number, content)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "write_part", once)
        with pytest.raises(Killed):
            vit_zoo.embed("digits.onnx", images, out, workers=1, **options)


@pytest.mark.parametrize(
    ("change", "different"),
    [
        ({"artifact": "dynamic.onnx"}, "artifact"),
        ({"output": "patch_mean"}, "output"),
        ({"normalise": True, "dtype": "float16"}, "normalised and dtype"),
        ({"batch": 7}, "batch"),
        ({"preprocess": {"mean": 0.4}}, "preprocess"),
        ({"images": "mixed/0*.png"}, "images"),
    ],
)
def test_a_partial_result_of_another_run(mixed, monkeypatch, cli, change, different):
    interrupt("a.npy", "mixed", monkeypatch)
    before = {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    change = {"workers": 1, **change}
    artifact, images = change.pop("artifact", "digits.onnx"), change.pop("images", "mixed")
    with pytest.raises(InputError) as caught:
        vit_zoo.embed(artifact, images, "a.npy", **change)
    assert str(caught.value) == (
        f"a.npy.partial: is a partial result of another run, with other {different} "
        "(finish it with its own command, or start again with force=True)"
    )
    assert {path: path.read_bytes() for path in mixed.rglob("*") if path.is_file()} == before
    if different == "batch":
        assert vit_zoo.embed(artifact, images, "a.npy", force=True, **change).images == 66


def test_an_image_that_changed_meanwhile(mixed, monkeypatch):
    interrupt("a.npy", "mixed", monkeypatch)
    Image.new("L", (9, 7)).save("mixed/05.png")
    with pytest.raises(InputError, match="with other images"):
        vit_zoo.embed("digits.onnx", "mixed", "a.npy")


def test_force_goes_on_too(mixed, monkeypatch, caplog):
    """With --force, the same command goes on where it was interrupted."""
    vit_zoo.embed("digits.onnx", "mixed", "a.npy")
    expected = states(mixed)
    interrupt("a.npy", "mixed", monkeypatch, force=True)
    assert states(mixed) == expected
    vit_zoo.embed("digits.onnx", "mixed", "a.npy", force=True)
    assert "resuming after 32 of 70 images" in caplog.messages[-1]
    assert states(mixed) == expected


def test_a_damaged_part_is_made_again(mixed, monkeypatch):
    interrupt("a.npy", "mixed", monkeypatch)
    (part,) = (mixed / "a.npy.partial").glob("*.part")
    part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(CannotWrite, match=r"part 0 is damaged \(the same command makes it again\)"):
        vit_zoo.embed("digits.onnx", "mixed", "a.npy")
    expected = vit_zoo.embed("digits.onnx", "mixed", "b.npy").features()
    np.testing.assert_array_equal(vit_zoo.embed("digits.onnx", "mixed", "a.npy").features(), expected)


def test_what_is_in_the_way(mixed, cli):
    (mixed / "a.npy.partial").mkdir()
    (mixed / "a.npy.partial" / "mine.txt").write_text("mine")
    (mixed / "b.csv").write_text("mine")
    (mixed / "c.npy").mkdir()
    for out, text in (
        ("a.npy", "a.npy.partial: is in the place of partial results, but is none of vitzoo's (move it away)"),
        ("b.npy", "b.csv: already exists (--force replaces it)"),
        ("c.npy", "c.npy: expected a file, got a folder"),
    ):
        before = states(mixed)
        code, _, err = cli("embed", "digits.onnx", "mixed", "-o", out)
        assert (code, err) == (8, f"vitzoo: error: {text}\n")
        assert states(mixed) == before
    assert (mixed / "a.npy.partial" / "mine.txt").read_text() == "mine"


def test_two_processes_do_not_mix(mixed, monkeypatch):
    interrupt("a.npy", "mixed", monkeypatch)
    import fcntl

    descriptor = os.open("a.npy.partial", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as another process has it
    try:
        for force in (False, True):
            with pytest.raises(CannotWrite, match=r"a.npy.partial: another process is at work on it"):
                vit_zoo.embed("digits.onnx", "mixed", "a.npy", force=force)
    finally:
        os.close(descriptor)
    assert vit_zoo.embed("digits.onnx", "mixed", "a.npy").images == 66


def test_a_disk_that_is_full_in_the_middle(place, tmp_path, cli):
    with small_disk_at(tmp_path / "disk", "400k") as disk:
        (disk / "rest").write_bytes(bytes(300_000))
        code, _, err = cli("embed", "digits.onnx", DIGITS, "-o", disk / "a.parquet", "--workers", "1")
        assert code == 8
        assert "disk" in err or "space" in err
        done = len(list(disk.glob("a.parquet.partial/*.part")))
        assert done
        assert [path.name for path in disk.iterdir() if path.is_file()] == ["rest"]
        (disk / "rest").unlink()
        code, _, err = cli("embed", "digits.onnx", DIGITS, "-o", disk / "a.parquet")
        assert code == 0, err
        assert f"resuming after {done * 32} of 360 images" in err
        assert vit_zoo.embed("digits.onnx", DIGITS, "b.parquet").images == COUNT
        assert (disk / "a.parquet").read_bytes() == (place / "b.parquet").read_bytes()


def test_other_tools_files(place, cli):
    """A file without metadata runs with stated preprocessing, as one with the same in its metadata."""
    import onnx

    model = onnx.load("digits.onnx")
    del model.metadata_props[:]
    onnx.save(model, "theirs.onnx")
    code, _, err = cli("embed", "theirs.onnx", DIGITS, "-o", "a.npy")
    assert code == 2
    assert "theirs.onnx: states no preprocessing of images (state it: --preprocess NAME or FILE, or --mean, --std" in err
    options = ("--mean", "0.5", "--std", "0.5", "--crop", "none", "--interpolation", "bicubic")
    assert cli("embed", "theirs.onnx", DIGITS, "-o", "a.npy", *options).code == 0
    assert cli("embed", "digits.onnx", DIGITS, "-o", "b.npy").code == 0
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))


def test_a_file_that_prepares_images_itself(mixed):
    (done,) = vit_zoo.export(
        "vit_digits", out="inside.onnx", outputs=["pooler_output"], include=["preprocess-exact"], verify=False
    )
    inside = vit_zoo.embed(done.path, "mixed", "a.npy").features()
    outside = vit_zoo.embed("digits.onnx", "mixed", "b.npy").features()
    np.testing.assert_allclose(inside, outside, atol=2e-5)
    with pytest.raises(InputError, match="prepares images itself"):
        vit_zoo.embed(done.path, "mixed", "c.npy", preprocess="half")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"out": "a.csv"}, InputError, "a.csv: the name of a file of features must end in .parquet, .npy, .safetensors"),
        ({"dtype": "float64"}, InputError, "unknown dtype 'float64'; choose from float32, float16"),
        ({"batch": 0}, InputError, "batch must be at least 1, got 0"),
        ({"workers": 0}, InputError, "workers must be at least 1, got 0"),
        ({"images": []}, InputError, "no images given"),
        ({"images": "gone"}, InputError, "gone: no such file or folder"),
        ({"images": "b.csv", "out": "b.npy"}, InputError, "b.csv: would be replaced by the result: choose another name for that"),
        ({"column": "x"}, InputError, "column='x' applies to CSV and Parquet tables"),
        ({"output": "logits"}, InputError, "digits.onnx: has no output 'logits' (it has pooler_output [batch, 64], "),
        ({"out": "no/a.npy"}, InputError, "no: no such folder"),
        ({"artifact": "gone.onnx"}, InputError, "gone.onnx: no such file (`vitzoo export MODEL --onnx`"),
        ({"artifact": "b.csv"}, RefusedContent, "b.csv: expected an exported file"),
    ],
)
def test_wrong_arguments(place, options, error, text):
    (place / "b.csv").write_text("path\nx.png\n")
    before = states(place)
    arguments = {"artifact": "digits.onnx", "images": DIGITS, "out": "a.npy", **options}
    with pytest.raises(error) as caught:
        vit_zoo.embed(arguments.pop("artifact"), arguments.pop("images"), arguments.pop("out"), **arguments)
    assert text in str(caught.value)
    assert states(place) == before
    assert not list(place.glob("*.partial"))


def test_without_pyarrow(place, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = cli("embed", "digits.onnx", DIGITS, "-o", "a.parquet")
    assert code == 4
    assert err == "vitzoo: error: Parquet files need pyarrow; .npy and .safetensors do not (pip install pyarrow)\n"
    assert cli("embed", "digits.onnx", DIGITS, "-o", "a.npy").code == 0


def test_embedding_imports_no_torch(place):
    code = (
        "import sys; from vit_zoo.cli.entry_point import run; "
        f"code = run(['embed', 'digits.onnx', {str(DIGITS)!r}, '-o', 'a.npy', '-q']); "
        "print(code, sorted({'torch', 'onnx', 'onnxruntime', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0 []\n"
