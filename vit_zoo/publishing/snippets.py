"""Code blocks of the card, one per client, which load the repository and run as pasted; tests run each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vit_zoo.publishing.clients import Profile

# {repo}: the repository; {auto}: transformers' class; {value}: the output; {read}: what is printed of it
CLASSIFY = {
    "vit_zoo": ("vit_zoo, with the weights:", "python", """\
import vit_zoo

print(vit_zoo.predict("hf-hub:{repo}", "image.jpg"))"""),
    "onnxruntime": ("The ONNX file only, without torch:", "python", """\
from huggingface_hub import hf_hub_download

import vit_zoo

print(vit_zoo.predict(hf_hub_download("{repo}", "onnx/model.onnx"), "image.jpg"))"""),
    "timm": ("timm:", "python", """\
import timm
import torch
from PIL import Image

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    print(model(prepare(Image.open("image.jpg").convert("RGB")).unsqueeze(0)){read})"""),
    "transformers": ("transformers:", "python", """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

prepare = AutoImageProcessor.from_pretrained("{repo}")
model = AutoModelForImageClassification.from_pretrained("{repo}").eval()
with torch.inference_mode():
    logits = model(**prepare(Image.open("image.jpg").convert("RGB"), return_tensors="pt")).logits
print(model.config.id2label[logits.argmax().item()])"""),
    "transformers.js": ("transformers.js:", "js", """\
import {{ pipeline }} from "@huggingface/transformers";

const classify = await pipeline("image-classification", "{repo}", {{ dtype: "{dtype}" }});
console.log(await classify("image.jpg"));"""),
    "optimum": ("optimum-onnx:", "python", """\
from optimum.onnxruntime import ORTModelForImageClassification

model = ORTModelForImageClassification.from_pretrained("{repo}", subfolder="onnx", file_name="model.onnx")"""),
}  # fmt: skip
SCORES = {  # in place of the above, where the classes do not exclude each other, or for a regression
    "transformers": ("transformers:", "python", """\
from transformers import pipeline

print(pipeline("image-classification", "{repo}")("image.jpg"))"""),
}  # fmt: skip
READ = {"softmax": ".topk(1)", "sigmoid": ".sigmoid()", None: ""}  # in torch
FEATURES = {
    "vit_zoo": ("vit_zoo, with the weights:", "python", """\
import torch

import vit_zoo

model = vit_zoo.load("hf-hub:{repo}").eval()
image = torch.zeros(1, {channels}, {height}, {width})  # preprocessed as described above
with torch.inference_mode():
    print(model.features(image, "{value}")["{value}"].shape)"""),
    "onnxruntime": ("The ONNX file only, without torch:", "python", """\
import numpy as np
import onnxruntime
from huggingface_hub import hf_hub_download

session = onnxruntime.InferenceSession(hf_hub_download("{repo}", "onnx/model.onnx"))
image = np.zeros((1, {channels}, {height}, {width}), np.float32)  # preprocessed as described above
print(session.run(["{value}"], {{"pixel_values": image}})[0].shape)"""),
    "timm": ("timm:", "python", """\
import timm
import torch

model = timm.create_model("hf-hub:{repo}", pretrained=True, num_classes=0).eval()
with torch.inference_mode():
    print(model(torch.zeros(1, {channels}, {height}, {width})).shape)"""),
    "transformers": ("transformers:", "python", """\
import torch
from transformers import {auto}

model = {auto}.from_pretrained("{repo}").eval()
with torch.inference_mode():
    print(model(pixel_values=torch.zeros(1, {channels}, {height}, {width})).last_hidden_state.shape)"""),
    "transformers.js": ("transformers.js:", "js", """\
import {{ pipeline }} from "@huggingface/transformers";

const extract = await pipeline("image-feature-extraction", "{repo}", {{ dtype: "{dtype}" }});
console.log((await extract("image.jpg")).dims);"""),
}  # fmt: skip


def snippets_of(profile: Profile, repo: str, dtypes: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield title, language and code for each client that loads the repository. `dtypes` are the types of its ONNX files."""
    config = profile.source.config
    classify = profile.classifies and config.preprocess is not None
    height, width = config.spec.image_size
    words = {"repo": repo, "channels": config.spec.channels, "height": height, "width": width, "value": profile.outputs[-1]}
    words["dtype"] = "q8" if "q8" in dtypes else "fp32"
    words["auto"] = profile.architecture or "AutoModel"
    words["read"] = READ[config.activation]
    blocks = {**CLASSIFY, **({} if config.activation == "softmax" else SCORES)} if classify else FEATURES
    for client, (title, kind, code) in blocks.items():
        if client in profile.clients:
            yield title, kind, code.format(**words)
