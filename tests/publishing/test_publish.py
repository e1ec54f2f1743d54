"""Tests of published repositories: every client computes the same outputs, and the card's snippets run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from support.hub_environment import HUB_PORT
from support.loopback_hub import Hub
from support.paths import NODE, PHOTOS
from support.published import MODELS, Published, relative, repo_of
from support.requirements import required
from vit_zoo.hub.front_matter import split_card
from vit_zoo.publishing.clients import CLIENTS

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
NOT_FOR = {  # of all clients, these cannot load it
    "dinov2": {"optimum"}, "registers": {"optimum"}, "ijepa": {"optimum"}, "siglip": {"optimum"},
    "dinov3": {"timm", "optimum"}, "clip": {"timm", "transformers.js", "optimum"},
}  # fmt: skip
CLASSIFIERS = ("vit", "distilled", "deit3")  # timm's model gives logits; the others' is pooled


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    with Hub(HUB_PORT) as hub:
        found = Published(hub, tmp_path_factory.mktemp("published"))
        for name in MODELS:
            found.publish(name)
        yield found


def decibels(given, wanted):
    return 10 * np.log10(np.square(wanted).sum() / np.square(given - wanted).sum())


def test_one_commit_each(published):
    for name in MODELS:
        assert set(CLIENTS) - set(published.clients[name]) == NOT_FOR.get(name, set()), name
        assert len(published.hub.titles(repo_of(name))) == 2  # the first is the Hub's own
        files = published.hub.files(repo_of(name))
        assert {"config.json", "model.safetensors", "transformers.safetensors", "preprocessor_config.json", "README.md"} <= set(
            files
        )
        assert {f"onnx/model{suffix}.onnx" for suffix in ("", "_fp16", "_quantized")} <= set(files)


@pytest.mark.parametrize("client", ["vit_zoo", "timm", "transformers", "onnxruntime"])
def test_python_clients(published, client):
    for name, found in published.given(client).items():
        wanted = published.wanted[name]
        if client == "timm":
            if name == "ijepa":  # it has no pooling of its own: timm's is the mean, which the zoo's name says too
                continue
            pooled = wanted["logits" if name in CLASSIFIERS else "pooler_output"]
            assert relative(found["hub"], pooled) <= 1e-5, name
            assert relative(found["local"], pooled) <= 1e-5, name
            continue
        for key, value in wanted.items():
            assert relative(found[key], value) <= 1e-5, (name, key)
            if client == "onnxruntime":
                assert relative(found[f"{key}_fp16"], value) <= 5e-3, (name, key)
                assert_rounded(found[f"{key}_quantized"], value, key)


def assert_rounded(given, wanted, key):
    assert decibels(given, wanted) >= 25
    if key == "logits":
        assert (given.argmax(-1) == wanted.argmax(-1)).all()


def in_node(script, asked):
    node = required("node")
    required("transformers.js", NODE / "node_modules" / "@huggingface" / "transformers")
    done = subprocess.run([node, script], input=json.dumps(asked), cwd=NODE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q8"])
def test_transformers_js(published, dtype):
    jobs = []
    names = [name for name in MODELS if "transformers.js" in published.clients[name]]
    assert len(names) >= 8
    for name in names:
        *_, auto, values = MODELS[name]
        output = published.folder / f"{name}.{dtype}.raw"
        shape = list(published.images[name].shape)
        file = "model" if auto == "SiglipVisionModel" else None  # by its own choice it is vision_model
        jobs.append({
            "repo": repo_of(name), "auto": auto, "dtype": dtype, "values": values, "dims": shape, "output": str(output),
            "input": str(published.folder / f"{name}.raw"), **({} if file is None else {"file": file}),
        })  # fmt: skip
    in_node("hub.mjs", {"remote": published.hub.url, "cache": str(published.folder / "js"), "jobs": jobs})
    for name in names:
        given = np.fromfile(published.folder / f"{name}.{dtype}.raw", "<f4")
        at = 0
        for key, wanted in published.wanted[name].items():
            value = given[at : at + wanted.size].reshape(wanted.shape)
            at += wanted.size
            match dtype:
                case "fp32":
                    assert relative(value, wanted) <= 1e-5, (name, key)
                case "fp16":
                    assert relative(value, wanted) <= 5e-3, (name, key)
                case "q8":
                    assert_rounded(value, wanted, key)
        assert at == given.size


def test_publishing_again_makes_no_commit(published):
    heads = {name: published.hub.titles(repo_of(name)) for name in MODELS}
    commits = published.hub.asked("POST", "/commit/")
    done = published.vitzoo("publish", "registers", repo_of("registers"), "--license", "apache-2.0", "--json")
    assert json.loads(done.out)["changed"] == []
    assert published.hub.asked("POST", "/commit/") == commits
    assert published.hub.titles(repo_of("registers")) == heads["registers"]


def blocks(published, name, kind):
    card = published.hub.files(repo_of(name))["README.md"].decode()
    return re.findall(rf"```{kind}\n(.*?)```", card, re.DOTALL)


CARDS = ("vit", "deit3", "registers", "dinov3", "siglip", "clip")


@pytest.fixture(scope="module")
def snippets(published):
    """What the Python blocks of each card give; optimum's needs another environment."""
    jobs = []
    for name in CARDS:
        folder = published.folder / f"reader-{name}"
        folder.mkdir()
        shutil.copy(PHOTOS / "cat.jpg", folder / "image.jpg")
        found = [block for block in blocks(published, name, "python") if "optimum" not in block]
        jobs += [{"name": name, "folder": str(folder), "code": block} for block in found]
    return json.loads(published.program("of_snippets.py", jobs))


@pytest.mark.parametrize("name", CARDS)
def test_snippets_run(published, snippets, name):
    found = [block for block in snippets if block["name"] == name]
    assert len(found) == len({*published.clients[name]} & {"vit_zoo", "timm", "transformers", "onnxruntime"})
    for block in found:
        assert not block["error"], block["error"]
        assert block["out"].strip(), block


@pytest.mark.parametrize("name", ["vit", "registers", "siglip"])
def test_snippets_run_in_node(published, name):
    required("node")
    required("transformers.js", NODE / "node_modules" / "@huggingface" / "transformers")
    (block,) = blocks(published, name, "js")
    image = PHOTOS / "cat.jpg"
    first = f"""import {{ env }} from "@huggingface/transformers";
Object.assign(env, {{ remoteHost: "{published.hub.url}", cacheDir: "{published.folder / "js"}", allowLocalModels: false }});
"""
    code = first + block.replace("image.jpg", str(image))
    done = subprocess.run(["node", "--input-type=module", "-e", code], cwd=NODE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_the_card_states_licence_and_origin(published):
    """Licence and origin of a repository are kept in a repository made from it."""
    done = published.vitzoo("publish", f"hf-hub:{repo_of('vit')}", "org/second", "--without", "fp16", "--without", "int8")
    assert "RANDOM" not in done.err
    front, text = split_card(published.hub.files("org/second")["README.md"].decode())
    head = published.hub.repositories[repo_of("vit")].at("main").oid
    assert front["license"] == "apache-2.0"
    assert "q8" not in text  # it was left out
    assert '{ dtype: "fp32" }' in text
    assert front["base_model"] == [repo_of("vit")]
    assert f"{repo_of('vit')}](https://huggingface.co/{repo_of('vit')})@{head}" in text
