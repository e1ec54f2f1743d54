"""Repositories of small models on a Hub of this machine, as `vitzoo publish` makes them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import torch

import vit_zoo
from support.cli import Result
from support.loopback_hub import WRITER
from support.models import noise
from support.paths import CLIENTS, ROOT
from vit_zoo.cli.entry_point import run

SMALL = {"dim": 48, "depth": 3, "heads": 3, "dim_head": 16, "mlp_dim": 96}
# a name, what is other than the zoo's, transformers' class, transformers.js's class, and the values that all can give
MODELS = {
    "vit": ("vit_ti16", {"image_size": 32, "patch_size": 8, "num_classes": 11}, "ViTForImageClassification",
            "AutoModelForImageClassification", ["logits"]),
    "distilled": ("deit_distilled_ti16", {"image_size": 32, "patch_size": 8, "num_classes": 11},
                  "DeiTForImageClassificationWithTeacher", "AutoModelForImageClassification", ["logits"]),
    "deit3": ("deit3_s16", {"image_size": 32, "patch_size": 8, "num_classes": 11, "mlp_dim": 192},
              "Dinov2ForImageClassification", "AutoModelForImageClassification", ["logits"]),
    "dinov2": ("dinov2_s14", {"image_size": 28, "mlp_dim": 192}, "Dinov2Model", "AutoModel",
               ["last_hidden_state", "pooler_output"]),
    "registers": ("dinov2_s14_reg4", {"image_size": 28, "mlp_dim": 192}, "Dinov2WithRegistersModel", "AutoModel",
                  ["last_hidden_state", "pooler_output"]),
    "dinov3": ("dinov3_s16", {"image_size": 32}, "DINOv3ViTModel", "AutoModel", ["last_hidden_state", "pooler_output"]),
    "ijepa": ("ijepa_h14", {"image_size": 28}, "IJepaModel", "AutoModel", ["last_hidden_state"]),
    "siglip": ("siglip_b16", {"image_size": 32, "patch_size": 8}, "SiglipVisionModel", "SiglipVisionModel",
               ["last_hidden_state", "pooler_output"]),
    "clip": ("clip_b16", {"image_size": 32, "patch_size": 8, "num_classes": 24, "problem_type": "embedding"},
             "CLIPVisionModelWithProjection", None, ["image_embeds"]),
}  # fmt: skip
BATCH = 6


def repo_of(name):
    return f"org/{name}"


class Published:
    """The repositories of all models on a Hub at `HUB_PORT`, and the outputs expected of each."""

    def __init__(self, hub, folder):
        self.hub, self.folder = hub, folder
        self.images, self.wanted, self.clients = {}, {}, {}
        self.environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HOME": str(folder / "cache"),
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def vitzoo(self, *arguments, code=0):
        """Run the command line in this process, with the permission to write to the Hub."""
        out, err = io.StringIO(), io.StringIO()
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with contextlib.chdir(self.folder), mock.patch.dict(os.environ, HF_TOKEN=WRITER), streams[0], streams[1]:
            done = Result(run([str(argument) for argument in arguments]), out.getvalue(), err.getvalue())
        assert done.code == code, done.err
        return done

    def publish(self, name):
        variant, changes, *_, values = MODELS[name]
        model = noise(vit_zoo.create(variant, **{**SMALL, **changes}), scale=0.15)
        vit_zoo.save(model, self.folder / name)
        spec = model.spec
        generator = torch.Generator().manual_seed(7)
        images = torch.randn(BATCH, spec.channels, *spec.image_size, generator=generator)
        with torch.inference_mode():
            self.wanted[name] = {key: value.numpy() for key, value in model.features(images, *values).items()}
        self.images[name] = images.numpy()
        np.save(self.folder / f"{name}.npy", self.images[name])
        self.images[name].tofile(self.folder / f"{name}.raw")
        done = self.vitzoo("publish", name, repo_of(name), "--license", "apache-2.0", "--json")
        self.clients[name] = json.loads(done.out)["clients"]

    def given(self, client):
        """A client's outputs for every repository, from a process of its own."""
        jobs = []
        names = [name for name in MODELS if client in self.clients[name]]
        for name in names:
            *_, auto, _, values = MODELS[name]
            local = self.folder / "local" / name
            if client == "timm" and not local.exists():
                for path, content in self.hub.files(repo_of(name)).items():
                    (local / path).parent.mkdir(parents=True, exist_ok=True)
                    (local / path).write_bytes(content)
            places = {"input": str(self.folder / f"{name}.npy"), "output": str(self.folder / f"{name}.{client}.npz")}
            jobs.append({"repo": repo_of(name), "local": str(local), "auto": auto, "values": values, **places})
        self.program("of_python.py", {"client": client, "jobs": jobs})
        return {name: dict(np.load(self.folder / f"{name}.{client}.npz")) for name in names}

    def program(self, name, asked):
        """The output of a client program, which reads what is asked of it from stdin."""
        command = [sys.executable, CLIENTS / name]
        done = subprocess.run(command, input=json.dumps(asked), env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def relative(given, wanted):
    assert given.shape == wanted.shape
    return np.abs(given - wanted).max() / np.abs(wanted).max()
