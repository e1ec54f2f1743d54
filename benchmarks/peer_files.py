"""Files that `latency.py` compares: the results of each exporter and quantiser of the peers, from one set of weights.

`python peer_files.py WAY MODEL FOLDER` makes one file, in a process of its own and, for `optimum` and `timmx`, in an
environment of their own. Every file takes a free batch size.

    FOLDER/timm.safetensors, vitzoo/, transformers/, torchvision.safetensors   the weights, in each library's layout
    FOLDER/images/, images.npy, logits.npy                                     photographs, some of them as tensors, timm's logits
    FOLDER/WAY.onnx                                                            the file that a peer makes
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import VITZOO, run

MODELS = {"vit_b16": "vit_base_patch16_224", "vit_ti16": "vit_tiny_patch16_224"}  # ours: timm's
PHOTOS = Path(__file__).parents[1] / "zoo" / "photos"
CROPS = 32  # photographs to calibrate with
SIDE = 224
TIMED = 8  # number of these in the timed batches


def make(way: str, model: str, folder: Path, python: str | None = None) -> Path:
    """Return the file of a way and make it if it does not exist. `python` is the interpreter of another environment."""
    target = folder / f"{way}.onnx"
    if not target.exists():
        run([python or sys.executable, __file__, way, model, str(folder)])
    return target


def make_weights(model: str, folder: Path) -> None:
    """Make the weights and images if they do not exist."""
    if not (folder / "logits.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run([sys.executable, __file__, "weights", model, str(folder)])


def _weights(model: str, folder: Path, target: Path) -> None:
    """Write timm's model with noise in every parameter, also in the layouts of the other libraries."""
    from peers import import_timm

    timm = import_timm()
    import numpy as np
    import torch
    from safetensors.torch import save_file

    import vit_zoo

    torch.manual_seed(0)
    module = timm.create_model(MODELS[model]).eval()
    with torch.no_grad():
        for name, p in module.named_parameters():
            unit = name.endswith(("norm.weight", "norm1.weight", "norm2.weight"))
            p.copy_(1 + 0.1 * torch.randn_like(p) if unit else 0.02 * torch.randn_like(p))
    save_file(module.state_dict(), folder / "timm.safetensors")
    vit_zoo.save(vit_zoo.load(folder / "timm.safetensors"), folder / "vitzoo")
    source = str(folder / "vitzoo")
    run([VITZOO, "convert", source, "--to", "hf", "--force", "-o", str(folder / "transformers")])
    if model == "vit_b16":
        run([VITZOO, "convert", source, "--to", "torchvision", "--force", "-o", str(folder / "torchvision.safetensors")])
    _photographs(folder / "images")
    images = np.stack([one for one, _ in zip(_tensors(folder / "images"), range(TIMED), strict=False)])
    np.save(folder / "images.npy", images)
    with torch.inference_mode():
        np.save(folder / "logits.npy", module(torch.from_numpy(images)).numpy())


def _photographs(folder: Path) -> None:
    """Write crops of the photographs in the zoo."""
    import numpy as np
    from PIL import Image, ImageOps

    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    photographs = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for i in range(CROPS):
        photograph = photographs[i % len(photographs)]
        left, top = (int(random.integers(side - SIDE + 1)) for side in photograph.size)
        crop = photograph.crop((left, top, left + SIDE, top + SIDE))
        (ImageOps.mirror(crop) if i % 4 > 1 else crop).save(folder / f"{i:02}.png")


def _tensors(folder: Path) -> Iterator[Any]:
    import numpy as np
    from PIL import Image

    for path in sorted(folder.glob("*.png")):
        yield ((np.asarray(Image.open(path), np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1).copy()


def _timm(model: str, folder: Path) -> Any:
    from peers import import_timm

    timm = import_timm()
    from safetensors.torch import load_file

    module = timm.create_model(MODELS[model]).eval()
    module.load_state_dict(load_file(folder / "timm.safetensors"))
    return module


def _dynamo(module: Any, name: str, target: Path) -> None:
    import torch

    shapes = {name: {0: torch.export.Dim("batch", min=1, max=1024)}}
    example = (torch.zeros(2, 3, SIDE, SIDE),)
    torch.onnx.export(module, example, target, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)


def _timm_dynamo(model: str, folder: Path, target: Path) -> None:
    _dynamo(_timm(model, folder), "x", target)


def _timm_script(model: str, folder: Path, target: Path) -> None:
    import torch

    example, names = (torch.zeros(1, 3, SIDE, SIDE),), {"input_names": ["x"], "output_names": ["logits"]}
    free = {"x": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(_timm(model, folder), example, target, dynamo=False, opset_version=17, dynamic_axes=free, **names)


def _torchvision(model: str, folder: Path, target: Path) -> None:
    import peers  # noqa: F401  declares the operators that are missing in torchvision
    from safetensors.torch import load_file
    from torchvision.models import vit_b_16

    module = vit_b_16().eval()
    module.load_state_dict(load_file(folder / "torchvision.safetensors"))
    _dynamo(module, "x", target)


def _transformers(model: str, folder: Path, target: Path) -> None:
    _exporter(folder, target, fusions=None)


def _transformers_fused(model: str, folder: Path, target: Path) -> None:
    _exporter(folder, target, fusions="cpu")


def _exporter(folder: Path, target: Path, *, fusions: Any) -> None:
    from peers import import_transformers_vit

    vit, _ = import_transformers_vit()
    import onnx_ir
    import torch
    from transformers.exporters import OnnxConfig, OnnxExporter

    module = vit.from_pretrained(folder / "transformers", local_files_only=True).eval()
    shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=1024)}}
    config = OnnxConfig(dynamic_shapes=shapes, ort_fusions=fusions)
    exported = OnnxExporter().export(module, {"pixel_values": torch.zeros(2, 3, SIDE, SIDE)}, config)
    onnx_ir.save(exported.program, target)


def _optimum(model: str, folder: Path, target: Path) -> None:
    from optimum.commands.optimum_cli import main

    made = folder / "optimum"
    what = ["-m", str(folder / "transformers"), "--task", "image-classification", str(made)]
    sys.argv = ["optimum-cli", "export", "onnx", *what]
    main()
    shutil.move(made / "model.onnx", target)


def _timmx(model: str, folder: Path, target: Path) -> None:
    from peers import import_timm

    import_timm()
    from timmx.cli import main

    what = ["--checkpoint", str(folder / "timm.safetensors"), "--dynamic-batch", "--batch-size", "2", "--output", str(target)]
    sys.argv = ["timmx", "export", "onnx", MODELS[model], *what]
    main()


def _quantize_dynamic(model: str, folder: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / "timm-dynamo.onnx", target, weight_type=QuantType.QInt8, per_channel=True)


def _quantize_static(model: str, folder: Path, target: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        images = _tensors(folder / "images")

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(folder / "timm-dynamo.onnx", target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)


WAYS: dict[str, Callable[[str, Path, Path], None]] = {
    "weights": _weights,
    "timm-dynamo": _timm_dynamo,
    "timm-script": _timm_script,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "transformers-fused": _transformers_fused,
    "optimum": _optimum,
    "timmx": _timmx,
    "quantize-dynamic": _quantize_dynamic,
    "quantize-static": _quantize_static,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("way", choices=WAYS)
    options.add_argument("model", choices=MODELS)
    options.add_argument("folder", type=Path)
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    partial = chosen.folder / f"{chosen.way}.partial.onnx"  # renamed when it is complete
    way = WAYS[chosen.way]
    try:
        way(chosen.model, chosen.folder, partial)
    except SystemExit as exit:  # the peers' command lines end in this way
        if exit.code not in (0, None):
            raise
    if chosen.way != "weights":
        partial.rename(chosen.folder / f"{chosen.way}.onnx")


if __name__ == "__main__":
    main()
