"""Tests of the Ray engine on a cluster of two workers: the same files as locally, whatever happens to a worker."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vit_zoo
from support.requirements import required
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.partial import Partial
from vit_zoo.inference.embed import folder as feature_folder
from vit_zoo.inference.embed.part_writer import PartWriter, PartWriters
from vit_zoo.inference.engine import engine_of

COUNT, CHUNKS = 300, 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an exported file and images, of which three cannot be read."""
    folder = tmp_path_factory.mktemp("ray")
    vit_zoo.export("vit_digits", out=folder / "digits.onnx", outputs=["pooler_output"], verify=False)
    vit_zoo.export("vit_digits", out=folder / "classes.onnx", verify=False)
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = generator.integers(0, 256, (6 + i % 5, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:03}.png")
    for i in (0, 140, 299):
        (folder / "images" / f"{i:03}.png").write_bytes(b"\x89PNG no more")
    return folder


def ray_is_required():
    """Skip the test where Ray is not installed, or fail it where VITZOO_REQUIRE names it."""
    spec = importlib.util.find_spec("ray")
    required("ray", Path("ray-is-not-installed" if spec is None else str(spec.origin)))


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two workers for this file, to which this process is connected."""
    ray_is_required()
    engine_of("ray", workers=2)  # sets Ray's variables
    import ray

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
        signal.signal(number, handler)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import tests
    yield ray
    ray.shutdown()


@pytest.fixture
def place(made, folder):
    """An empty current folder with links to these files."""
    for name in ("digits.onnx", "classes.onnx"):
        shutil.copy(made / name, folder)
    shutil.copytree(made / "images", folder / "images", copy_function=os.link)
    return folder


class Dying(PartWriters):
    """Writers of parts whose process is killed before part 4, and after part 7, the first time."""

    def __call__(self):
        return DyingWriter(self)


class DyingWriter(PartWriter):
    def __call__(self, piece):
        flag = self.partial.folder / f"killed-{piece.number}"
        first = piece.number in (4, 7) and not flag.exists()
        if first:
            flag.touch()
        if first and piece.number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        count = super().__call__(piece)
        with (self.partial.folder / "calls").open("a") as file:
            file.write(f"{piece.number} {os.getpid()}\n")
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return count


class Failing(PartWriters):
    """Writers of parts that fail at part 5."""

    def __call__(self):
        return FailingWriter(self)


class FailingWriter(PartWriter):
    def __call__(self, piece):
        if piece.number == 5:
            raise RefusedContent("output 'x': gone", where="digits.onnx", hint="export it again")
        return super().__call__(piece)


def test_the_same_files_as_locally_though_workers_are_killed(place, cluster, monkeypatch):
    """Each part is written once, by two processes or more, and the result is that of the local engine, byte for byte."""
    vit_zoo.embed("digits.onnx", "images", "local.parquet", workers=2)
    calls = []
    discard = Partial.discard

    def keep_calls(self):
        calls.extend(line.split() for line in (self.folder / "calls").read_text().splitlines())
        discard(self)

    with monkeypatch.context() as patch:
        patch.setattr("vit_zoo.inference.embed.PartWriters", Dying)
        patch.setattr(Partial, "discard", keep_calls)
        done = vit_zoo.embed("digits.onnx", "images", "ray.parquet", engine="ray", workers=2)
    assert (done.images, done.failed) == (COUNT - 3, 3)
    for suffix in (".parquet", ".failures.csv"):
        assert (place / f"ray{suffix}").read_bytes() == (place / f"local{suffix}").read_bytes()
    assert {int(number) for number, _ in calls} == set(range(CHUNKS))
    assert len({pid for _, pid in calls}) >= 3
    assert not list(place.glob("*.partial"))
    assert not list(place.glob(".*"))


def test_an_error_keeps_its_type_and_another_engine_goes_on(place, cluster, monkeypatch, cli, caplog):
    with monkeypatch.context() as patch:
        patch.setattr("vit_zoo.inference.embed.PartWriters", Failing)
        code, out, err = cli("embed", "digits.onnx", "images", "-o", "a.npy", "--engine", "ray", "--workers", "2")
    assert (code, out) == (7, "")
    assert err.splitlines()[-1] == "vitzoo: error: digits.onnx: output 'x': gone (export it again)"
    parts = len(list(place.glob("a.npy.partial/*.part")))
    assert 4 <= parts < CHUNKS
    assert not (place / "a.npy").exists()
    vit_zoo.embed("digits.onnx", "images", "a.npy", workers=2)
    assert "resuming after" in caplog.text
    expected = vit_zoo.embed("digits.onnx", "images", "b.npy", workers=2).features()
    np.testing.assert_array_equal(np.load("a.npy"), expected)


def test_a_folder_of_files(place, cluster, monkeypatch, cli):
    """Workers write the files; pandas reads them as one table. An interrupted run writes only the missing ones."""
    whole = vit_zoo.embed("digits.onnx", "images", "whole.parquet", workers=2).to_pandas()
    monkeypatch.setattr(feature_folder, "IMAGES", 96)
    code, out, _ = cli("embed", "digits.onnx", "images", "-o", "local", "--json")
    assert code == 0
    assert (json.loads(out)["path"], json.loads(out)["failures"]) == ("local", str(Path("local", "_failures.csv")))
    done = vit_zoo.embed("digits.onnx", "images", "ray", engine="ray", workers=2)
    names = [*(f"part-{i:06}.parquet" for i in range(4)), "_failures.csv"]
    for name in ("local", "ray"):
        assert sorted(path.name for path in Path(name).iterdir()) == sorted(names)
        pd.testing.assert_frame_equal(pd.read_parquet(name), whole)
    assert all(Path("local", name).read_bytes() == Path("ray", name).read_bytes() for name in names)
    np.testing.assert_array_equal(done.features(), np.stack(whole["features"]))
    assert json.loads(pq.read_schema(Path("ray", names[0])).metadata[b"vitzoo"])["rows"] == 95
    assert pd.read_csv(done.failures)["path"].tolist() == [f"images/{i:03}.png" for i in (0, 140, 299)]


def test_results_in_order(place, cluster):
    """The engine itself returns results of any kind, in the order of the chunks."""

    class Square:
        def __call__(self, number):
            return number, number**2, os.getpid(), Path.cwd()

        def close(self):
            pass

    results = list(engine_of("ray", workers=2)(range(40), Square))
    assert [row[:2] for row in results] == [(i, i**2) for i in range(40)]
    assert os.getpid() not in {row[2] for row in results}
    assert {row[3] for row in results} == {Path.cwd()}
    assert list(engine_of("ray")([], Square)) == []


def test_predict_and_evaluate(place, cluster, cli):
    wanted = vit_zoo.predict("classes.onnx", "images/1[5-9]*.png", workers=2, top=3)
    assert len(wanted) == 50
    assert vit_zoo.predict("classes.onnx", "images/1[5-9]*.png", engine="ray", workers=2, top=3) == wanted
    code, out, _ = cli("predict", "classes.onnx", "images/1[5-9]*.png", "--engine", "ray", "--workers", "2", "--csv", "-")
    assert (code, [line.split(",")[0] for line in out.splitlines()[1:]]) == (0, [p.file for p in wanted])
    rows = [f"images/{i:03}.png,{'ab'[i % 3 == 0]}" for i in range(100)]
    (place / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    local = vit_zoo.evaluate("digits.onnx", "table.csv", workers=2)
    assert (local.images, len(local.failures)) == (99, 1)
    assert vit_zoo.evaluate("digits.onnx", "table.csv", engine="ray", workers=2) == local


def test_a_folder_that_exists(place, cli):
    """Nothing of the user is replaced: other files never, features by force."""
    (place / "kept").mkdir()
    (place / "kept" / "notes.txt").touch()
    for force in ([], ["--force"]):
        code, _, err = cli("embed", "digits.onnx", "images", "-o", "kept", *force)
        assert (code, "contains notes.txt, which is no file of features" in err) == (8, True)
    vit_zoo.embed("digits.onnx", "images/0*.png", "features")
    code, _, err = cli("embed", "digits.onnx", "images", "-o", "features")
    assert (code, "features: already exists (--force replaces it)" in err) == (8, True)
    assert vit_zoo.embed("digits.onnx", "images", "features", force=True).images == COUNT - 3
    assert len(pd.read_parquet("features")) == COUNT - 3


def test_without_ray(place, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = cli("embed", "digits.onnx", "images", "-o", "a.npy", "--engine", "ray")
    assert (code, err) == (4, "vitzoo: error: the engine ray needs Ray Data (pip install 'ray[data]')\n")
    assert not list(place.glob("a.npy*"))


def test_the_local_engine_imports_no_ray(place):
    program = "import sys, vit_zoo; vit_zoo.embed('digits.onnx', 'images', 'a.npy'); print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_addresses(place, cli):
    ray_is_required()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for address, cause in (
        (f"127.0.0.1:{port}", f"--address 127.0.0.1:{port}: no Ray cluster answers there: Connection refused"),
        ("ray://head:10001", "--address ray://head:10001: Ray's client protocol is not supported"),
        ("head", "--address head: expected HOST:PORT"),
    ):
        code, _, err = cli("embed", "digits.onnx", "images", "-o", "a.npy", "--engine", "ray", "--address", address)
        assert (code, cause in err) == (2, True), err
    code, _, err = cli("embed", "digits.onnx", "images", "-o", "a.npy", "--address", "head:6379")
    assert (code, "--address head:6379 applies only to --engine ray" in err) == (2, True), err
    with pytest.raises(InputError, match="unknown engine 'spark'; choose from local, ray"):
        vit_zoo.embed("digits.onnx", "images", "a.npy", engine="spark")
    assert not list(place.glob("a.npy*"))


def test_the_files_of_the_docs():
    """`ray up` and KubeRay can read the examples: Ray's own schema, and the same paths and names throughout."""
    import yaml

    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    cluster, job = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    spec = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert len(spec["workerGroupSpecs"]) == 1
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert all(mount["mountPath"] == "/data" for mount in container["volumeMounts"])
    ray_is_required()
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))
