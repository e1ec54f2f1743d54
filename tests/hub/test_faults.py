"""Tests of faults of a Hub: each has its exit code, and the repository gets no commit or a complete one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.constants import HF_HUB_CACHE

import vit_zoo
from support.hub_environment import HUB_PORT
from support.loopback_hub import READER, WRITER, Fault, Hub, git_oid, sha256
from support.models import SMALL, noise
from vit_zoo.files.sniff import git_oid as our_git_oid
from vit_zoo.hub import client

# how huggingface_hub 2.4 uploads a file, which httpx2 would have otherwise
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HUB_VERSION = tuple(map(int, huggingface_hub.__version__.split(".")[:2]))
REPO = "org/model"
CACHE = Path(HF_HUB_CACHE)
# every request of a publish to a repository that is there, in their order
REQUESTS = {
    "who": ("GET", "/whoami"),
    "refs": ("GET", "/refs$"),
    "head": ("GET", f"/api/models/{REPO}$"),
    "listing": ("GET", "/tree/"),
    "card": ("POST", "/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"),
    "upload": ("PUT", "/objects/"),
    "verify": ("POST", "/lfs/verify"),
    "commit": ("POST", "/commit/"),
}
SIZED = {**SMALL, "depth": 1, "image_size": 32, "patch_size": 8}
QUICK = ("--without", "fp32", "--without", "fp16", "--without", "int8")


@pytest.fixture
def hub(monkeypatch):
    shutil.rmtree(CACHE, ignore_errors=True)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with Hub(HUB_PORT) as found:
        found.create(REPO)
        yield found
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module")
def _model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    vit_zoo.save(noise(vit_zoo.create("vit_ti16", **{**SMALL, "depth": 1})), folder)
    return folder


@pytest.fixture
def model(_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_model, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def said(cli):
    """Run a command that prints no token; return its exit code, stdout and stderr."""

    def run(*arguments):
        code, out, err = cli(*arguments)
        assert WRITER not in out + err
        assert READER not in out + err
        assert err.count("error:") <= 1
        return code, out, err

    return run


def commits(hub, revision="main"):
    return len(hub.titles(REPO, revision)) - 1  # the first is the Hub's own


def is_whole(hub, folder):
    files = hub.files(REPO)
    staged = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: files.get(name) for name in staged} == staged


def publish(said, *more, repo=REPO):
    return said("publish", "tiny", repo, "--license", "mit", *QUICK, *more)


@pytest.fixture
def staged(model, said):
    """The folder that a publish would send."""
    assert publish(said, "--dry-run", "staged")[0] == 0
    return Path("staged")


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"drop": "before"}, {"drop": "after"}], ids=str)
def test_temporary_faults_are_retried(hub, said, staged, request_, fault):
    method, path = REQUESTS[request_]
    hub.faults.append(Fault(method, path, **fault))
    code, _, err = publish(said)
    assert (code, commits(hub)) == (0, 1), err
    assert hub.faults[0].times == 0, "the request was never made"
    assert is_whole(hub, staged)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("status", [401, 403, 404, 409, 412])
def test_refused_requests_leave_no_commit(hub, said, model, request_, status):
    method, path = REQUESTS[request_]
    hub.faults.append(Fault(method, path, status=status, times=None))
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 0), err
    assert "Traceback" not in err


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_retry_after_of_a_day_is_an_error(hub, said, model, request_):
    method, path = REQUESTS[request_]
    hub.faults.append(Fault(method, path, status=429, headers={"Retry-After": "86400"}, times=None))
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 0)
    assert "requires a wait of 24 hours" in err


def test_a_permanent_fault_ends_with_an_error(hub, said, model, monkeypatch):
    hub.faults.append(Fault("POST", "/commit/", status=503, times=None))
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 0)
    assert "failed internally" in err
    monkeypatch.setenv("VITZOO_HUB_DEADLINE", "0.001")
    code, _, err = publish(said)
    assert code == 5
    assert "gave up after 0 seconds" in err


@pytest.mark.parametrize("status", [500, 403])
def test_reading_back_fails(hub, said, staged, status, monkeypatch):
    """The commit is complete; the message states that it could not be checked."""
    monkeypatch.setenv("VITZOO_HUB_DEADLINE", "3")
    hub.faults.append(Fault("GET", "/tree/", status=status, times=None, skip=1))
    code, _, _ = publish(said)
    assert (code, commits(hub)) == (5, 1)
    assert is_whole(hub, staged)


def test_content_that_the_hub_changed_is_detected(hub, said, model):
    hub.objects = Damaging(hub.objects)
    code, _, err = publish(said)
    assert code == 5
    assert "as it was uploaded" in err


class Damaging(dict):
    """A store whose content differs from what it was given."""

    def __getitem__(self, key):
        content = super().__getitem__(key)
        return content[:-1] + bytes([content[-1] ^ 1])


def test_a_commit_by_someone_else_in_between(hub, said, model):
    """Between reading the repository and the commit: their files are not overwritten."""

    def push(method, path):
        if "/preupload/" in path and commits(hub) == 0:
            hub.push(REPO, {"note.txt": b"theirs"})

    hub.on_request = push
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 1)
    assert "changed by someone else" in err
    assert "config.json" not in hub.files(REPO)
    hub.on_request = lambda method, path: None
    assert publish(said)[0] == 0
    assert hub.files(REPO)["note.txt"] == b"theirs"


@pytest.mark.parametrize("request_", REQUESTS)
def test_kill_9_during_a_request(hub, model, request_):
    """No commit or a complete one; the next publish completes it."""
    method, path = REQUESTS[request_]
    command = [sys.executable, "-m", "vit_zoo.cli", "publish", "tiny", REPO, "--license", "mit", *QUICK]

    def kill(asked, at):
        if asked == method and re.search(path, at):
            child.kill()
            child.wait()

    hub.on_request = kill
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert child.wait() == -signal.SIGKILL
    assert commits(hub) <= 1
    assert commits(hub) == 0 or "model.safetensors" in hub.files(REPO)
    hub.on_request = lambda method, path: None
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, commits(hub)) == (0, 1), done.stderr


def test_tokens(hub, said, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 0)
    assert "not allowed" in err
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    code, _, err = publish(said)
    assert code == 5
    assert "rejected the token" in err
    for broken in ("hf_" + "x" * 20 + " x", "hf_" + "ü" * 20):
        monkeypatch.setenv("HF_TOKEN", broken)
        code, _, err = publish(said, "--debug")
        assert code == 5
        assert "x" * 20 not in err
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = publish(said)
    assert code == 5
    assert "hf auth login" in err
    assert commits(hub) == 0


def test_a_new_repository(hub, said, model):
    hub.faults.append(Fault("POST", "/repos/create", drop="after"))
    code, _, err = publish(said, "--private", "--tag", "v1", repo="org/other")
    assert code == 0, err
    assert hub.repositories["org/other"].private
    assert hub.repositories["org/other"].at("v1").oid == hub.repositories["org/other"].at("main").oid
    code, _, err = publish(said, "--tag", "v1", repo="org/other")
    assert code == 2
    assert "tag 'v1' already exists" in err


def test_branches_and_proposals(hub, said, model):
    assert publish(said, "--revision", "next")[0] == 0
    assert (commits(hub), commits(hub, "next")) == (0, 1)
    assert publish(said, "--revision", "next", repo="org/fresh")[0] == 0
    assert (len(hub.titles("org/fresh")), len(hub.titles("org/fresh", "next"))) == (1, 2)
    hub.faults.append(Fault("POST", "/commit/", drop="after"))
    code, out, _ = publish(said, "--create-pr", "--json")
    assert code == 0
    assert json.loads(out)["url"].endswith(f"/{REPO}/discussions/1")
    assert commits(hub) == 0
    assert [ref for ref in hub.repositories[REPO].refs if ref.startswith("refs/pr/")] == ["refs/pr/1"]


@pytest.mark.skipif(HUB_VERSION < (1, 20), reason="older versions of huggingface_hub use Git LFS here")
def test_upload_through_xet(hub, staged, tmp_path):
    """As uploaded where hf_xet is installed: large files go to its store, here a folder, and the commit lists their hashes."""
    hub.store = tmp_path / "store"
    hub.store.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    command = [sys.executable, "-m", "vit_zoo.cli", "publish", "tiny", REPO, "--license", "mit", *QUICK, "--json"]
    for changed in (True, False):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert bool(json.loads(done.stdout)["changed"]) == changed
        assert commits(hub) == 1
    assert hub.asked("GET", "/xet-write-token/")
    assert not hub.asked("PUT")
    assert hub.files(REPO)["model.safetensors"].oid == sha256((staged / "model.safetensors").read_bytes())
    assert sum(path.stat().st_size for path in hub.store.rglob("*") if path.is_file()) > 100_000


def test_a_gitignore_in_the_repository(hub, said, model):
    hub.push(REPO, {".gitignore": b"# large\n*.safetensors\n"})
    code, _, err = publish(said)
    assert (code, commits(hub)) == (5, 1)
    assert ".gitignore excludes model.safetensors" in err


def test_files_of_other_weights_are_removed(hub, said, model):
    """Files of an earlier publish that are not sent again belong to other weights and are removed; all other files stay."""
    old = {"onnx/model_fp16.onnx": b"old", "onnx/model_fp16.onnx_data": b"old", "onnx/model_fp16.onnx.parity.json": b"{}"}
    hub.push(REPO, {**old, "onnx/theirs.onnx": b"theirs", "config.json.txt": b"theirs", "photo.png": b"theirs"})
    hub.push(REPO, {"README.md": b"---\nlanguage: en\nlicense: gpl\n---\nTheir words.\n"})
    assert publish(said)[0] == 0
    files = hub.files(REPO)
    assert not set(old) & set(files)
    assert {files[name] for name in ("onnx/theirs.onnx", "config.json.txt", "photo.png")} == {b"theirs"}
    card = files["README.md"].decode()
    assert "Their words." in card
    assert "language: en" in card
    assert "license: mit" in card
    assert publish(said)[0] == 0
    assert hub.files(REPO)["README.md"].decode() == card


# what must not be published


def test_existing_files_need_a_valid_report(hub, said, model):
    export = ("export", "tiny", "--onnx", "-o", "tiny", "--verify", "quick")
    keep = ("--without", "fp16", "--without", "int8", "--license", "mit")
    assert said(*export)[0] == 0
    artifact, report = Path("tiny/vit_ti16.onnx"), Path("tiny/vit_ti16.onnx.parity.json")
    good, text = artifact.read_bytes(), report.read_text()
    assert said("publish", "tiny", REPO, *keep)[0] == 0
    assert hub.files(REPO)["onnx/model.onnx"] == good
    done = commits(hub)
    report.unlink()
    code, _, err = said("publish", "tiny", REPO, *keep)
    assert (code, "has no parity report" in err) == (3, True)
    report.write_text(text.replace('"ok": true', '"ok": false', 1))
    code, _, err = said("publish", "tiny", REPO, *keep)
    assert (code, "failed its parity check" in err) == (3, True)
    report.write_text(text.replace(sha256(good), "0" * 64))
    code, _, err = said("publish", "tiny", REPO, *keep)
    assert (code, "describes another file" in err) == (3, True)
    report.write_text(text)
    other = vit_zoo.load("tiny")
    noise(other, seed=5)
    vit_zoo.save(other, "tiny")
    code, _, err = said("publish", "tiny", REPO, *keep)
    assert (code, "other weights" in err) == (3, True)
    assert commits(hub) == done


def test_files_in_the_folder(hub, said, model):
    """An excluded file is left out; a file with softmax inside must not have the name of a plain one."""
    assert said("export", "tiny", "--onnx", "--fp16", "-o", "tiny", "--verify", "quick")[0] == 0
    code, _, err = publish(said)
    assert (code, "vit_ti16_fp16.onnx: left out on request" in err) == (0, True)
    assert not [name for name in hub.files(REPO) if name.startswith("onnx/")]
    Path("tiny/vit_ti16_fp16.onnx").unlink()
    assert said("export", "tiny", "--onnx", "--include", "softmax", "-o", "tiny/model.onnx", "--verify", "quick")[0] == 0
    code, _, err = publish(said)
    assert (code, "clients expect a file with default options under this name" in err) == (2, True)


def test_random_weights_need_the_option(hub, said, folder):
    vit_zoo.save(vit_zoo.create("vit_ti16", **SMALL), "tiny")
    code, _, err = publish(said)
    assert (code, "RANDOM WEIGHTS" in err) == (2, True)
    assert commits(hub) == 0
    assert publish(said, "--random-weights")[0] == 0
    assert b"RANDOM WEIGHTS" in hub.files(REPO)["README.md"]


def test_secrets_and_pickles(hub, said, model):
    (model / "LICENSE").write_text("hf_" + "a" * 34)
    code, _, err = publish(said)
    assert (code, "LICENSE: contains a Hub token" in err) == (7, True)
    (model / "LICENSE").write_text("MIT")
    (model / ".env").write_text("HF_TOKEN=x")
    code, _, err = publish(said)
    assert (code, "contains .env" in err) == (2, True)
    (model / ".env").unlink()
    (model / "optimizer.pt").write_bytes(b"\x80\x04\x95" + b"0" * 80)
    code, _, err = publish(said)
    assert (code, "not sent: optimizer.pt: a pickle" in err) == (0, True)
    assert hub.files(REPO)["LICENSE"] == b"MIT"
    assert "optimizer.pt" not in hub.files(REPO)


@pytest.mark.parametrize(
    ("arguments", "code", "fragment"),
    [
        (["publish", "tiny", "model"], 2, "expected a repository ORG/NAME"),
        (["publish", "tiny", "hf-hub:org/model"], 2, "expected ORG/NAME"),
        (["publish", "tiny", "org/model@v1"], 2, "expected ORG/NAME"),
        (["publish", "tiny", REPO, "--tag", "v1", "--create-pr"], 2, "a tag names a commit on a branch"),
        (["publish", "tiny", REPO, "--tag", "a..b"], 2, "expected a branch, tag or commit"),
        (["publish", "tiny", REPO, "--revision", "a" * 40], 2, "expected a branch, got a commit"),
        (["publish", "tiny", REPO, "--calibrate", "nowhere"], 2, "nowhere"),
        (["publish", "tiny", REPO, "--calibrate", "tiny", "--without", "int8"], 2, "calibrate applies to int8"),
        (["publish", "tiny", REPO, "--dry-run", "tiny"], 8, "is not empty"),
        (["publish", "tiny", REPO, "--dry-run", "a/b"], 2, "no such folder"),
        (["publish", "nowhere", REPO], 2, "no variant 'nowhere'"),
        (["publish", "vit_b16", REPO, "--set", "nope=1"], 2, "unknown field"),
        (["pull", "model"], 2, "expected a repository ORG/NAME"),
        (["pull", "org/../x"], 2, "expected a repository ORG/NAME"),
        (["pull", "org/absent"], 5, "no such repository, or it is private"),
        (["pull", f"{REPO}@v9"], 5, "no such revision"),
        (["pull", REPO], 5, "contains no weights with a known file name"),
        (["pull", REPO, "-o", "tiny"], 8, "is not empty"),
        (["show", "hf-hub:org/absent"], 5, "no such repository"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_wrong_input(hub, said, model, arguments, code, fragment):
    found, _, err = said(*arguments)
    assert (found, fragment in err) == (code, True), err
    assert commits(hub) == 0


# reading


@pytest.fixture
def there(hub, staged):
    """A repository with a model."""
    hub.push(REPO, {path.relative_to(staged).as_posix(): path.read_bytes() for path in staged.rglob("*") if path.is_file()})
    return hub


def tensors(folder):
    return {name: p.detach().numpy() for name, p in vit_zoo.load(folder).named_parameters()}


def same(first, second):
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_pull(there, said):
    code, out, err = said("pull", REPO, "--json")
    assert code == 0, err
    about = json.loads(out)
    assert about["licence"] == "mit"
    assert about["source"].startswith(f"hf-hub:{REPO}@{there.repositories[REPO].at('main').oid}")
    assert same("tiny", "model")
    assert said("pull", REPO)[0] == 8
    assert said("pull", f"{REPO}@main", "--force")[0] == 0


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 503}, {"drop": "before"}, {"drop": "body"}, {"corrupt": True}, {"truncate": True}],
    ids=str,
)
def test_a_download_is_retried(there, said, fault):
    there.faults.append(Fault("GET", "/resolve/.*model.safetensors", **fault))
    code, _, err = said("pull", REPO)
    assert code == 0, err
    assert there.faults[0].times == 0
    assert same("tiny", "model")


@pytest.mark.parametrize(
    ("fault", "fragment"),
    [
        ({"corrupt": True}, "was damaged in two downloads"),
        ({"truncate": True}, ""),
        ({"status": 403}, "not allowed"),
        ({"status": 404}, ""),
        ({"status": 429, "headers": {"Retry-After": "86400"}}, "requires a wait of 24 hours"),
    ],
    ids=str,
)
def test_a_download_that_stays_bad(there, said, fault, fragment, monkeypatch):
    monkeypatch.setenv("VITZOO_HUB_DEADLINE", "5")
    there.faults.append(Fault("GET", "/resolve/.*model.safetensors", times=None, **fault))
    code, _, err = said("pull", REPO)
    assert (code, fragment in err) == (5, True), err
    assert not Path("model").exists()
    there.faults.clear()
    assert said("pull", REPO)[0] == 0, "something bad was left in the cache"
    assert same("tiny", "model")


def test_gated_and_private(there, said, monkeypatch):
    there.repositories[REPO].gated = True
    monkeypatch.setenv("HF_TOKEN", READER)
    code, _, err = said("pull", REPO)
    assert (code, "is gated" in err) == (5, True)
    there.repositories[REPO].gated, there.repositories[REPO].private = False, True
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = said("pull", REPO)
    assert (code, "or it is private" in err) == (5, True)


def test_offline(there, said, monkeypatch):
    code, _, err = said("pull", REPO, "--offline")
    assert (code, "not in the cache" in err) == (5, True)
    assert said("show", f"hf-hub:{REPO}")[0] == 0
    asked = len(there.log)
    assert said("pull", REPO, "--offline")[0] == 0
    model = vit_zoo.load(f"hf-hub:{REPO}", offline=True)
    assert model.config.licence == "mit"
    assert len(there.log) == asked
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vit_zoo.cli"]
    hit = subprocess.run([*command, "pull", REPO, "-o", "third"], env=environment, capture_output=True, text=True)
    assert hit.returncode == 0, hit.stderr
    for arguments in (["pull", "org/other"], ["publish", "tiny", REPO, "--license", "mit"]):
        miss = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
        assert (miss.returncode, "HF_HUB_OFFLINE is set" in miss.stderr) == (5, True), miss.stderr
    assert len(there.log) == asked


def test_no_network(there, said, monkeypatch):
    """The cache is used in place of the Hub, at the commit that it holds; files that it lacks are an error."""
    assert said("show", f"hf-hub:{REPO}")[0] == 0
    there.server.shutdown()
    there.server.server_close()
    assert said("pull", REPO)[0] == 0
    code, _, err = said("pull", "org/other")
    assert (code, "cannot reach the Hub" in err) == (5, True)
    there.server.serve_forever = lambda **_: None  # the fixture closes it once more


def test_the_cache_is_not_written_to(there, said):
    code, _, err = said("export", f"hf-hub:{REPO}", "--onnx", "--shared")
    assert (code, "`vitzoo pull` makes a folder" in err) == (2, True)
    assert said("export", f"hf-hub:{REPO}", "--onnx", "--verify", "quick")[0] == 0
    assert Path("vit_ti16.onnx").is_file()


def test_a_tag_of_the_zoo(hub, said, model, monkeypatch):
    """`NAME.TAG` is the file of that tag's row; a name alone is its default tag."""
    from vit_zoo.registry.models import get_config

    made = noise(vit_zoo.create("vit_ti16"))
    vit_zoo.convert(made, "theirs", "timm")
    files = {path.name: path.read_bytes() for path in Path("theirs").iterdir()}
    hub.create("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", files)
    found = vit_zoo.load("vit_ti16.augreg_in21k_ft_in1k")
    assert found.config.labels == get_config("vit_ti16.augreg_in21k_ft_in1k").labels
    assert found.config.licence == "apache-2.0"
    assert "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k@" in found.config.source
    for model in (found, vit_zoo.load("vit_ti16")):
        for (name, a), b in zip(made.named_parameters(), model.parameters(), strict=True):
            assert np.array_equal(a.detach().numpy(), b.detach().numpy()), name
    assert vit_zoo.load("vit_ti16", num_classes=5).spec.num_classes == 5
    code, _, err = said("publish", "vit_ti16", "org/mine", *QUICK, "--dry-run", "carded")
    assert code == 0, err
    card = ModelCard(Path("carded/README.md").read_text())  # as the Hub reads it
    assert (card.data.license, card.data.base_model) == ("apache-2.0", ["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.metric_value, result.verified) == ("imagenet-1k", 75.452, False)
    assert "as reported by timm" in card.text
    code, _, err = said("publish", "vit_ti16", "org/mine", *QUICK, "--dry-run", "other", "--license", "mit")
    assert (code, "the licence of the weights is apache-2.0" in err) == (2, True)
    code, _, err = said("create", "vit_ti16.augreg_in21k_ft_in1k")
    assert (code, "expected a name or a config, got a model with weights" in err) == (2, True)


def test_a_head_beside_the_weights_of_a_tag(hub, tmp_path, monkeypatch):
    """The tag's weights have no classes; the model has those of the head."""
    monkeypatch.chdir(tmp_path)
    made = noise(vit_zoo.create("dinov2_s14"))
    vit_zoo.convert(made, "theirs", "timm")
    hub.create("timm/vit_small_patch14_dinov2.lvd142m", {path.name: path.read_bytes() for path in Path("theirs").iterdir()})
    linear = noise(torch.nn.Linear(384, 5))
    torch.save(linear.state_dict(), "linear.pth")
    found = vit_zoo.load("dinov2_s14.lvd142m", head="linear.pth")
    images = torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        torch.testing.assert_close(found.eval()(images), linear(made.eval()(images)), rtol=0, atol=1e-4)


def test_a_name_means_its_published_weights(hub, said, tmp_path, monkeypatch):
    """A bare name is exported with its default tag's weights, another library's name with those of that library."""
    monkeypatch.chdir(tmp_path)
    made = noise(vit_zoo.create("vit_ti16"))
    vit_zoo.convert(made, "theirs", "timm")
    files = {path.name: path.read_bytes() for path in Path("theirs").iterdir()}
    hub.create("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", files)
    images = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    wanted = made(torch.from_numpy(images)).detach().numpy()
    for name in ("vit_ti16", "vit_tiny_patch16_224", "timm/vit_tiny_patch16_224"):
        code, _, err = said("export", name, "--onnx", "-o", "a.onnx", "--verify", "off")
        assert (code, "RANDOM" in err) == (0, False)
        assert f"'{name.removeprefix('timm/')}' means the weights vit_ti16.augreg_in21k_ft_in1k" in err
        artifact = vit_zoo.open("a.onnx")
        assert (artifact.config.random_seed, artifact.config.preprocess.mean[0]) == (None, 0.5)
        np.testing.assert_allclose(artifact.run(images)["logits"], wanted, rtol=0, atol=1e-4)
    code, _, err = said("convert", "vit_ti16", "-o", "seven", "--set", "num_classes=7")
    assert (code, "the weights have 1000 classes; the classifier for 7 classes is new" in err) == (0, True)
    seven = vit_zoo.load("seven")
    assert (seven.config.random_part, seven.config.labels) == ("head", None)
    assert torch.equal(seven.blocks[3].attn.qkv.weight, made.blocks[3].attn.qkv.weight)
    assert said("verify", "a.onnx", "--against", "vit_ti16")[0] == 0
    asked = len(hub.log)
    code, _, err = said("export", "vit_ti16", "--onnx", "--set", "depth=3")
    assert (code, "the published weights have depth = 12, not 3 (--random makes random weights)" in err) == (2, True)
    assert len(hub.log) == asked  # nothing is downloaded for it
    hub.server.shutdown()  # the cache is enough
    hub.server.server_close()
    hub.server.serve_forever = lambda **_: None  # the fixture closes it once more
    assert said("export", "vit_ti16", "--onnx", "-o", "b.onnx", "--verify", "off")[0] == 0
    assert Path("b.onnx").read_bytes() == Path("a.onnx").read_bytes()
    code, _, err = said("export", "vit_s16", "--onnx")
    assert (code, "cannot reach the Hub" in err, "--random for random weights" in err) == (5, True, True)


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "facebook/deit-tiny-patch16-224"])
def test_a_repositorys_name_means_that_repository(name, hub, said, tmp_path, monkeypatch):
    """The repository itself, with what it says, however it is called in the registry."""
    monkeypatch.chdir(tmp_path)
    code, _, err = said("export", name, "--onnx")
    assert (code, f"hf-hub:{name}" in err, "--random" in err) == (5, True, True)
    assert not list(tmp_path.iterdir())
    if name.startswith("google"):  # whose file a tag names
        return
    made = noise(vit_zoo.create("vit_ti16", **SIZED))
    vit_zoo.convert(made, "theirs", "hf")
    hub.create(name, {path.name: path.read_bytes() for path in Path("theirs").iterdir()})
    code, _, err = said("export", name, "--onnx", "-o", "a.onnx", "--verify", "off")
    assert (code, f"'{name}' means the repository hf-hub:{name}" in err) == (0, True)
    config = vit_zoo.open("a.onnx").config
    assert (config.random_seed, config.spec.dim) == (None, SIZED["dim"])
    assert config.source.startswith(f"hf-hub:{name}@")


def test_the_loopback_hub_hashes_content_as_git_does(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content\n" * 1000)
    found = subprocess.run(["git", "hash-object", file], capture_output=True, text=True).stdout.strip()
    assert git_oid(file.read_bytes()) == our_git_oid(file) == found
