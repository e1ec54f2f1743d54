"""Tests of `verify` on files of other exporters: correct ones pass, and faults in others are located."""

from __future__ import annotations

import copy
import functools
import logging
import re
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.formats.structure import read_onnx

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}


def transformers_vit():
    return peers.transformers.ViTForImageClassification(peers.transformers.ViTConfig(**SMALL, num_labels=11))


def siglip():
    return peers.transformers.SiglipVisionModel(peers.transformers.SiglipVisionConfig(**SMALL))


def clip():
    return peers.transformers.CLIPVisionModel(peers.transformers.CLIPVisionConfig(**SMALL))


# how each is built, and where its parameters are: the block, and in it the MLP's layers and queries, keys and values
PEERS = {
    "timm": (peers.timm_vit, "blocks.{i}.", ("mlp.fc1.", "mlp.fc2."), ("attn.qkv.",)),
    "torchvision": (
        peers.torchvision_vit,
        "encoder.layers.encoder_layer_{i}.",
        ("mlp.0.", "mlp.3."),
        ("self_attention.in_proj_",),
    ),
    "transformers": (
        transformers_vit,
        "vit.layers.{i}.",
        ("mlp.fc1.", "mlp.fc2."),
        ("attention.q_proj.", "attention.k_proj."),
    ),
    "SigLIP": (siglip, "encoder.layers.{i}.", ("mlp.fc1.", "mlp.fc2."), ("self_attn.q_proj.", "self_attn.k_proj.")),
    "CLIP": (clip, "encoder.layers.{i}.", ("mlp.fc1.", "mlp.fc2."), ("self_attn.q_proj.", "self_attn.k_proj.")),
}
HEADS = {"timm": "head.", "torchvision": "heads.head.", "transformers": "classifier."}
NORMS_IN_FRONT = {"CLIP": 1}  # of the blocks


def from_torch(module, path, **options):
    """A file from torch's exporters, without the warnings that concern torch itself."""
    size = (32, 48) if isinstance(module, peers.VisionTransformer) else (32, 32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", r"You are using the legacy TorchScript|The feature will be", DeprecationWarning)
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        torch.onnx.export(module, (torch.randn(2, 3, *size),), path, input_names=["pixel_values"], **options)
    return path


def dynamo(module, path, **options):
    options.setdefault("dynamic_shapes", ({0: torch.export.Dim("batch")},))
    return from_torch(module, path, dynamo=True, verbose=False, **options)


def torchscript(module, path, opset=17, axes=(0,)):
    names = {axis: ("batch", "channels", "height", "width")[axis] for axis in axes}
    return from_torch(module, path, dynamo=False, opset_version=opset, dynamic_axes={"pixel_values": names})


def from_transformers(module, path):
    """A file from transformers' own exporter."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        exported = OnnxExporter().export(module, {"pixel_values": torch.randn(2, 3, 32, 32)}, config=OnnxConfig(dynamic=True))
    exported.save_pretrained(path.parent)
    return path.parent / "model.onnx"


EXPORTERS = {
    "dynamo": dynamo,
    "opset 17": torchscript,
    "opset 14": functools.partial(torchscript, opset=14),  # norms and GELU spelled out
    "transformers": from_transformers,
}
FILES = [
    *((peer, exporter) for peer in HEADS for exporter in ("dynamo", "opset 17", "opset 14")),
    ("transformers", "transformers"),
    ("SigLIP", "opset 14"),
    ("CLIP", "opset 17"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Run on one thread: more slow each other down in models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns a peer's module and its file, each made once."""

    @functools.cache
    def module_of(peer):
        return noise(PEERS[peer][0]())

    @functools.cache
    def make(peer, exporter):
        return module_of(peer), EXPORTERS[exporter](module_of(peer), tmp_path_factory.mktemp("peer") / f"{peer}.onnx")

    return make


@pytest.mark.parametrize(("peer", "exporter"), FILES)
def test_a_file_computes_its_module(peer, exporter, exported):
    module, path = exported(peer, exporter)
    report = vit_zoo.verify(path, against=module)
    assert report.ok, report.faults
    assert report.verdict == "parity"
    assert {c.batch for c in report.comparisons} == {1, 2, 3, 5}
    assert report.skipped == ("inner values: compared only after a failure",)


@pytest.mark.parametrize(("peer", "exporter"), FILES[:6])
def test_a_file_computes_its_checkpoint(peer, exporter, exported, tmp_path):
    module, path = exported(peer, exporter)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    report = vit_zoo.verify(path, tmp_path / "weights.safetensors", blocks=True, **FACTS[peer])
    assert report.ok, report.faults
    assert [b.block for b in report.blocks] == [0, 1, 2]
    assert all(b.relative is not None and b.relative < b.allowed for b in report.blocks)


# what a checkpoint cannot tell
FACTS = {"timm": {"heads": 3, "image_size": (32, 48)}, "torchvision": {"heads": 3}}


# Faults: each changes one thing in a graph that a peer wrote


def held(graph, wanted):
    """The one initializer that holds these values, and whether they are transposed in it."""
    wanted = wanted.detach().numpy()
    found = [
        (tensor, turned)
        for tensor in graph.initializer
        for turned in ((False, True) if wanted.ndim == 2 else (False,))
        if np.array_equal(numpy_helper.to_array(tensor), wanted.T if turned else wanted)
    ]
    assert len(found) == 1
    return found[0]


def fill(tensor, turned, value):
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value.T if turned else value), tensor.name))


def of_type(graph, kind):
    return [node for node in graph.node if node.op_type == kind]


def attribute(node, name, value):
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


class Plant:
    """A graph in which to plant a fault, and its module."""

    def __init__(self, graph, module, peer, block):
        self.graph, self.peer, self.block = graph, peer, block
        self.parameters = dict(module.named_parameters())
        _, self.prefix, (self.fc1, self.fc2), self.qkv = PEERS[peer]

    def parameter(self, name):
        return self.parameters[self.prefix.format(i=self.block) + name]

    def change(self, old, change):
        """Replace a parameter's values."""
        tensor, turned = held(self.graph, old)
        fill(tensor, turned, change(old.detach().numpy().copy()))
        self.at = next(i for i, node in enumerate(self.graph.node) if tensor.name in node.input)

    def norm(self):
        """The operator with the first epsilon of the block: a LayerNormalization, or the Add of a decomposed one."""
        number = 2 * self.block + NORMS_IN_FRONT.get(self.peer, 0)
        if whole := of_type(self.graph, "LayerNormalization"):
            return whole[number]
        return [node for node in of_type(self.graph, "Add") if "ReduceMean" in node.input[0]][number]

    def softmax(self):
        return [i for i, node in enumerate(self.graph.node) if node.op_type == "Softmax"][self.block]

    def constant(self, name):
        return next(node.attribute[0].t for node in of_type(self.graph, "Constant") if node.output[0] == name)


def zeroed_bias(p):
    p.change(p.parameter(f"{p.fc1}bias"), np.zeros_like)


def scaled_matrix(p):
    p.change(p.parameter(f"{p.fc2}weight"), lambda w: w * np.float32(1.01))


def not_a_number(p):
    def change(w):
        w[3, 5] = np.nan
        return w

    p.change(p.parameter(f"{p.fc1}weight"), change)


def swapped_rows(x, one, other):
    x[[*one, *other]] = x[[*other, *one]]
    return x


def swapped_heads(p):
    """Swap the queries of two heads, 16 rows each, in the layer that begins with queries."""
    for kind in ("bias", "weight"):
        p.change(p.parameter(p.qkv[0] + kind), lambda x: swapped_rows(x, range(16), range(16, 32)))


def swapped_queries_and_keys(p):
    for kind in ("bias", "weight"):
        if len(p.qkv) == 1:
            p.change(p.parameter(p.qkv[0] + kind), lambda x: swapped_rows(x, range(48), range(48, 96)))
            continue
        q, k = (p.parameter(name + kind) for name in p.qkv)
        queries, keys = held(p.graph, q), held(p.graph, k)
        fill(*queries, k.detach().numpy())
        fill(*keys, q.detach().numpy())
        p.at = p.softmax()  # both values are still in the graph


def other_epsilon(p, eps=1e-3):
    node = p.norm()
    p.at = list(p.graph.node).index(node)
    if node.op_type == "Add":
        p.constant(node.input[1]).CopyFrom(numpy_helper.from_array(np.float32(eps)))
    else:
        attribute(node, "epsilon", eps)


def other_gelu(p):
    """Replace the exact GELU by the tanh form: its attribute, or the approximation in place of Erf."""
    if gelus := of_type(p.graph, "Gelu"):
        attribute(gelus[p.block], "approximate", "tanh")
        p.at = list(p.graph.node).index(gelus[p.block])
        return
    at = [i for i, node in enumerate(p.graph.node) if node.op_type == "Erf"][p.block]
    x, y = p.graph.node[at].input[0], p.graph.node[at].output[0]  # x is divided by the root of 2 already
    constants = {"three": 3.0, "small": 0.044715 * 2, "scale": 2 / np.pi**0.5}
    nodes = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.float32(v))) for n, v in constants.items()]
    nodes += [
        helper.make_node("Pow", [x, "three"], ["cube"]),
        helper.make_node("Mul", ["cube", "small"], ["part"]),
        helper.make_node("Add", [x, "part"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], [y]),
    ]
    p.at = at
    rest = [*p.graph.node[:at], *nodes, *p.graph.node[at + 1 :]]
    del p.graph.node[:]
    p.graph.node.extend(rest)


def other_softmax_axis(p):
    p.at = p.softmax()
    attribute(p.graph.node[p.at], "axis", -2)


FAULTS = (
    zeroed_bias,
    scaled_matrix,
    not_a_number,
    swapped_heads,
    swapped_queries_and_keys,
    other_epsilon,
    other_gelu,
    other_softmax_axis,
)


def spoilt(path, folder, fault, *where):
    """The file with a fault, and what planted it. `where`: module, peer, block."""
    model = onnx.load(path)
    plant = Plant(model.graph, *where)
    fault(plant)
    onnx.save(model, folder / "spoilt.onnx")
    return folder / "spoilt.onnx", plant


def number_of(operator):
    """The index in `NAME (operator 12, Gemm)`, or in `operator 12 (Gemm)` where the graph has no names."""
    return int(re.search(r"operator (\d+)", operator)[1])


# each kind of graph with every fault in a middle block, every file with one in the first or last
PLANTED = [
    *((peer, exporter, fault, 1) for peer, exporter in (FILES[0], FILES[5], FILES[7]) for fault in FAULTS),
    *((*file, zeroed_bias, 0) if i % 2 else (*file, scaled_matrix, 2) for i, file in enumerate(FILES)),
]


def check_parting(report, path, plant):
    """Check that the report names the right block and an operator of it: the planted one, or one that leads to it."""
    assert not report.ok
    assert report.verdict == "failed"
    assert report.parting is not None
    assert report.parting.block == plant.block, report.parting
    first = list(plant.graph.node).index(plant.norm())
    assert first - 6 <= number_of(report.parting.operator) <= plant.at, report.parting


@pytest.mark.parametrize(("peer", "exporter", "fault", "block"), PLANTED)
def test_a_fault_is_found_in_its_block(peer, exporter, fault, block, exported, tmp_path):
    module, path = exported(peer, exporter)
    found, plant = spoilt(path, tmp_path, fault, module, peer, block)
    report = vit_zoo.verify(found, against=module)
    check_parting(report, found, plant)


@pytest.mark.parametrize("place", ["patch_embed.proj", "norm", "head"])
def test_a_fault_outside_the_blocks(place, exported, tmp_path):
    module, path = exported("timm", "dynamo")
    found, plant = spoilt(path, tmp_path, lambda p: p.change(p.parameters[f"{place}.bias"], np.zeros_like), module, "timm", None)
    report = vit_zoo.verify(found, against=module)
    assert not report.ok
    assert (report.parting.block, report.parting.place) == (None, place)
    assert number_of(report.parting.operator) == plant.at


@pytest.mark.parametrize(("peer", "exporter"), [FILES[0], FILES[5]])
@pytest.mark.parametrize("fault", [scaled_matrix, swapped_heads])
def test_a_fault_is_found_against_a_checkpoint(peer, exporter, fault, exported, tmp_path):
    module, path = exported(peer, exporter)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    found, plant = spoilt(path, tmp_path, fault, module, peer, 1)
    check_parting(vit_zoo.verify(found, tmp_path / "weights.safetensors", **FACTS[peer]), found, plant)


@pytest.mark.parametrize(("peer", "exporter"), [FILES[0], FILES[5], FILES[7]])
def test_an_epsilon_that_outputs_do_not_show(peer, exporter, exported, tmp_path):
    module, path = exported(peer, exporter)
    other = 1e-12 if peer != "transformers" else 1e-9
    found, plant = spoilt(path, tmp_path, functools.partial(other_epsilon, eps=other), module, peer, 2)
    report = vit_zoo.verify(found, against=module)
    assert all(c.ok for c in report.comparisons)
    assert f"LayerNorm epsilon {other:g}, expected" in report.faults[0]
    assert number_of(report.parting.operator) == plant.at


@pytest.mark.parametrize(
    ("peer", "exporter", "eps", "norms", "act", "acts"),
    [
        ("timm", "opset 14", 1e-6, 7, "gelu", 3),
        ("SigLIP", "opset 14", 1e-6, 8, "gelu_tanh", 4),
        ("CLIP", "opset 17", 1e-5, 8, "quick_gelu", 3),
        ("transformers", "dynamo", 1e-12, 7, "gelu", 3),
    ],
)
def test_the_structure_of_peers_graphs(peer, exporter, eps, norms, act, acts, exported):
    structure, faults = read_onnx(exported(peer, exporter)[1])
    assert not faults
    assert [np.float32(e.value) for e in structure.norm_eps] == [np.float32(eps)] * norms
    assert [a.value for a in structure.acts] == [act] * acts
    assert structure.precision == "fp32"


def test_a_decomposed_activation_differs_from_the_modules(exported):
    module, path = exported("timm", "opset 14")
    other = copy.deepcopy(module)
    for block in other.blocks:
        block.mlp.act = torch.nn.GELU("tanh")
    report = vit_zoo.verify(path, against=other)
    assert "activation gelu, expected gelu_tanh" in report.faults[0]


@pytest.mark.parametrize("peer", HEADS)
def test_a_truncated_head(peer, exported, tmp_path):
    def truncated(p):
        for kind in ("weight", "bias"):
            p.change(p.parameters[HEADS[peer] + kind], lambda x: x[:10])
        p.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10

    module, path = exported(peer, "dynamo")
    found, _ = spoilt(path, tmp_path, truncated, module, peer, 0)
    report = vit_zoo.verify(found, against=module)
    assert not report.ok
    assert "shape [10] matches no output of the model" in report.faults[0]


# Axes


def test_a_file_with_a_fixed_batch(exported, tmp_path):
    module, _ = exported("timm", "opset 17")
    path = torchscript(module, tmp_path / "two.onnx", axes=())
    report = vit_zoo.verify(path, against=module)
    assert report.ok, report.faults
    assert "other batch sizes: the file accepts batches of 2 only" in report.skipped
    assert {c.batch for c in report.comparisons} == {2}
    found, plant = spoilt(path, tmp_path, scaled_matrix, module, "timm", 1)
    check_parting(vit_zoo.verify(found, against=module), found, plant)


@pytest.mark.parametrize("reference", ["module", "checkpoint"])
def test_axes_that_are_declared_free_and_are_not(reference, exported, tmp_path):
    module, _ = exported("timm", "opset 17")
    path = torchscript(module, tmp_path / "free.onnx", axes=(0, 2, 3))
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    against, facts = (module, {}) if reference == "module" else (tmp_path / "weights.safetensors", FACTS["timm"])
    report = vit_zoo.verify(path, against, **facts)
    assert not report.ok
    assert report.faults[0].startswith("declares height and width free, but ")
    assert "--fixed height,width" in report.faults[0]
    report = vit_zoo.verify(path, against, fixed=("height", "width"), **facts)
    assert report.ok, report.faults
    assert [line for line in report.skipped if "treated as fixed" in line] == [
        "height: declared free, treated as fixed",
        "width: declared free, treated as fixed",
    ]


def test_a_file_of_any_size(tmp_path):
    """Positions are resized in the graph, so a wrong way of resizing is visible only at other sizes."""
    module = noise(peers.timm_vit(dynamic_img_size=True))
    dim = torch.export.Dim
    path = dynamo(module, tmp_path / "free.onnx", dynamic_shapes=({0: dim("batch"), 2: dim.DYNAMIC, 3: dim.DYNAMIC},))
    report = vit_zoo.verify(path, against=module)
    assert report.ok, report.faults
    assert {c.size for c in report.comparisons} == {(32, 48), (40, 80), (56, 64)}
    model = onnx.load(path)
    attribute(of_type(model.graph, "Resize")[0], "cubic_coeff_a", -0.75)
    onnx.save(model, path)
    report = vit_zoo.verify(path, against=module)
    assert not report.ok
    assert {c.size for c in report.comparisons if not c.ok} == {(40, 80), (56, 64)}


class AnySize(torch.nn.Module):
    """transformers' ViT, called so that it resizes its positions."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values, interpolate_pos_encoding=True).logits


def test_a_wrapped_module_of_any_size(exported, tmp_path):
    """A module that no dialect of ours reads: the facts about its images are stated."""
    module = AnySize(exported("transformers", "opset 17")[0]).eval()
    path = torchscript(module, tmp_path / "free.onnx", axes=(0, 2, 3))
    report = vit_zoo.verify(path, against=module, image_size=32, patch_size=8)
    assert report.ok, report.faults
    assert {c.size for c in report.comparisons} == {(32, 32), (40, 48), (56, 40)}


def test_a_size_that_the_exporter_fixed(tmp_path):
    """The TorchScript exporter keeps the positions of the traced size, but declares the axes free."""
    module = noise(peers.timm_vit(dynamic_img_size=True))
    path = torchscript(module, tmp_path / "free.onnx", axes=(0, 2, 3))
    assert not vit_zoo.verify(path, against=module).ok
    assert vit_zoo.verify(path, against=module, fixed=("height", "width")).ok


# Precisions


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_half_precision(keep_io_types, exported, tmp_path):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    module, path = exported("timm", "opset 17")
    half = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types), half)
    report = vit_zoo.verify(half, against=module, blocks=True)
    assert report.ok, report.faults
    assert (report.verdict, report.precision) == ("parity", "fp16")
    assert {c.allowed for c in report.comparisons} == {5e-3}
    assert [b.block for b in report.blocks] == [0, 1, 2]

    model = onnx.load(half)
    matrices = [t for t in model.graph.initializer if len(t.dims) == 2 and min(t.dims) >= 48]
    assert len(matrices) >= 12
    for tensor in matrices:
        scaled = (numpy_helper.to_array(tensor) * 1.05).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.save(model, half)
    report = vit_zoo.verify(half, against=module)
    assert not report.ok
    assert report.precision == "fp16"
    assert report.parting.block == 0


def test_int8_files_are_approximations(exported, tmp_path, caplog):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    module, path = exported("timm", "opset 17")
    small = tmp_path / "small.onnx"
    with caplog.at_level(logging.ERROR):  # it recommends a step that does nothing here
        quantize_dynamic(path, small, weight_type=QuantType.QInt8)
    report = vit_zoo.verify(small, against=module)
    assert report.ok, report.faults
    assert (report.verdict, report.precision) == ("approximate", "int8")
    assert not report.comparisons
    assert {a.images for a in report.agreements} == {64}

    model = onnx.load(small)
    scale = next(t for t in model.graph.initializer if t.name.endswith("_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))
    onnx.save(model, small)
    report = vit_zoo.verify(small, against=module)
    assert not report.ok
    assert (report.verdict, report.precision) == ("failed", "int8")


# Models and files against each other


@pytest.fixture
def checkpoints(exported, tmp_path):
    """timm's module, its checkpoint, and a checkpoint with another weight in block 1."""
    module = exported("timm", "opset 17")[0]
    state = module.state_dict()
    torch.save(state, tmp_path / "timm.pt")
    save_file(state, tmp_path / "a.safetensors")
    other = {name: tensor.clone() for name, tensor in state.items()}
    other["blocks.1.mlp.fc2.weight"] *= 1.01
    save_file(other, tmp_path / "b.safetensors")
    return module, tmp_path


def test_a_checkpoint_and_a_live_module(checkpoints):
    module, folder = checkpoints
    report = vit_zoo.verify(folder / "timm.pt", against=module, **FACTS["timm"])
    assert report.ok, report.faults
    assert report.sha256 is None
    report = vit_zoo.verify(folder / "b.safetensors", against=module, **FACTS["timm"])
    assert not report.ok
    assert report.verdict == "failed"


def test_two_checkpoints(checkpoints):
    _, folder = checkpoints
    same = vit_zoo.verify(folder / "timm.pt", against=folder / "a.safetensors", **FACTS["timm"])
    assert same.ok, same.faults
    report = vit_zoo.verify(folder / "a.safetensors", against=folder / "b.safetensors", **FACTS["timm"])
    assert not report.ok
    assert report.faults[0] == "weight 'blocks.1.mlp.fc2.weight' differs from the model's"
    assert (report.parting.block, report.parting.place) == (1, "blocks.1.mlp.fc2")


def test_two_artifacts(exported, checkpoints):
    module, folder = checkpoints
    theirs = exported("timm", "opset 17")[1]
    for opset in (17, 23):
        vit_zoo.export(module, out=folder / f"{opset}.onnx", opset=opset, verify=False)
    vit_zoo.export(folder / "b.safetensors", out=folder / "b.onnx", verify=False, **FACTS["timm"])
    ours, newer, wrong = (folder / f"{name}.onnx" for name in ("17", "23", "b"))
    for one, other in ((ours, newer), (ours, theirs), (theirs, ours)):
        report = vit_zoo.verify(one, against=other)
        assert report.ok, report.faults
        assert report.reference == other.name
        assert {c.floor for c in report.comparisons} == {None}
    for one, other in ((wrong, ours), (wrong, theirs), (theirs, wrong)):
        report = vit_zoo.verify(one, against=other)
        assert not report.ok
        assert not any(c.ok for c in report.comparisons)


def test_our_file_and_a_live_module(checkpoints):
    module, folder = checkpoints
    vit_zoo.export(module, out=folder / "a.onnx", verify=False)
    report = vit_zoo.verify(folder / "a.onnx", against=module)
    assert report.ok, report.faults
    vit_zoo.export(folder / "b.safetensors", out=folder / "b.onnx", verify=False, **FACTS["timm"])
    report = vit_zoo.verify(folder / "b.onnx", against=module)
    assert not report.ok
    assert (report.parting.block, report.parting.place) == (1, "blocks.1.mlp.fc2")
