"""Tests of live modules: what is read computes what the module computes, or the module is refused."""

from __future__ import annotations

import copy
import types
import warnings

import onnxruntime
import pytest
import torch
from torch import nn
from vit_pytorch.simple_vit_with_qk_norm import SimpleViT as SimpleViTWithNorms

import vit_zoo
from support import meta_modules, peers
from support.models import SMALL, noise
from support.transformers_classes import CLASSES, built
from vit_zoo.errors import CheckFailed, InputError, NotRepresentable, RefusedContent, VitzooError
from vit_zoo.loading.source import find_source

open_clip = peers.open_clip
T = peers.transformers
SQUARE = {"img_size": 32, "patch_size": 8}
NAMED = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 48, "depth": 2, "heads": 3, "mlp_dim": 96}


def ours(**options):
    return vit_zoo.create("vit_b16", **{**SMALL, **options})


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


def images_for(spec):
    return torch.randn(2, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(7))


def clip_tower(**options):
    sizes = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "heads": 3, "mlp_ratio": 2, "output_dim": 24}
    return open_clip.transformer.VisionTransformer(**{**sizes, **options})


def clip_model(**vision):
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    sizes = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "head_width": 16, "mlp_ratio": 2}
    return open_clip.model.CLIP(embed_dim=24, vision_cfg={**sizes, **vision}, text_cfg=text)


# Modules that compute something else than their tensors and settings say. A change returns the module.


def hook_of_attention(module):
    module.encoder.layers[1].self_attention.register_forward_hook(lambda part, args, result: (result[0] * 1.1, result[1]))
    return module


def pre_hook_of_the_head(module):
    module.classifier.register_forward_pre_hook(lambda part, args: (args[0] + 0.1,))
    return module


def forward_of_a_block(module):
    block = module.blocks[1]  # the last one's result is divided by its deviation
    block.forward = types.MethodType(lambda part, x, *rest, **words: type(part).forward(part, x, *rest, **words) * 1.01, block)
    return module


def class_of_a_part(module):
    class Twice(type(module.transformer.layers[1][1])):
        def forward(self, x):
            return super().forward(x) * 2

    module.transformer.layers[1][1].__class__ = Twice
    return module


def act_of_one_block(module):
    module.blocks[1].mlp.act = nn.GELU(approximate="tanh")  # 1e-5 or less in the outputs
    return module


def eps_of_one_norm(module):
    module.blocks[2].norm2.eps = 2e-6
    return module


def eps_in_open_clip(module):
    module.transformer.resblocks[1].ln_2.eps = 1e-6
    return module


def output_scaled(module):
    forward = module.forward
    module.forward = lambda x: forward(x) / 2
    return module


def removed_registers(module):
    class Bare(type(module)):
        def _pos_embed(self, x):
            return super()._pos_embed(x)[:, 1:]

    module.__class__ = Bare
    return module


def other_norm(module):
    module.blocks[0].norm1 = nn.LayerNorm(48, eps=1e-5)
    return module


def mlp_in_float16(module):
    module.blocks[1].mlp.register_forward_hook(lambda part, args, result: result.half().to(result.dtype))
    return module


def subclass(module):
    class Mean(type(module)):
        def forward(self, image):
            return self.features(image, "patch_tokens")["patch_tokens"].mean(1)

    module.__class__ = Mean
    return module


def table(module):
    module.pos_embed *= 1.1
    return module


CHANGED = {
    "torchvision, a hook": (peers.torchvision_vit, hook_of_attention, "in block 1"),
    "transformers, a hook before the head": (
        lambda: built("ViTForImageClassification")[0],
        pre_hook_of_the_head,
        "behind the blocks",
    ),
    "timm, forward of a block": (peers.timm_vit, forward_of_a_block, "in block 1"),
    "vit-pytorch, class of a part": (lambda: peers.article_vit(image_size=32, patch_size=8), class_of_a_part, "in block 1"),
    "timm, activation": (peers.timm_vit, act_of_one_block, "blocks.1.mlp.act has the activation gelu_tanh"),
    "timm, epsilon": (peers.timm_vit, eps_of_one_norm, "blocks.2.norm2 has the epsilon 2e-06"),
    "open_clip, epsilon": (clip_tower, eps_in_open_clip, "transformer.resblocks.1.ln_2 has the epsilon 1e-06"),
    "SimpleViT, output": (peers.simple_vit, output_scaled, "in block 2 or behind it"),
    "DINOv2, forward": (lambda: meta_modules.DinoVisionTransformer(chunks=2), output_scaled, "behind the blocks"),
    "timm, tokens": (lambda: peers.timm_vit(reg_tokens=2), removed_registers, "before block 0"),
    "ours, norm": (ours, other_norm, "blocks.0.norm1 has the epsilon 1e-05"),
    "ours, epsilon": (ours, eps_of_one_norm, "blocks.2.norm2 has the epsilon 2e-06"),
    "ours, forward of a block": (ours, forward_of_a_block, "in block 1"),
    "ours, a hook that rounds": (ours, mlp_in_float16, "in block 1"),
    "ours, a subclass": (ours, subclass, "has outputs of shape"),
    "ours, fixed positions": (lambda: ours(pos="sincos_moco", pos_covers="patches"), table, "before block 0"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_module_that_computes_something_else_is_refused(name, folder):
    make, change, place = CHANGED[name]
    module = change(noise(make(), scale=0.15))
    for go in (
        lambda: vit_zoo.load(module),
        lambda: vit_zoo.export(module, out="a.onnx"),
        lambda: vit_zoo.convert(module, "out"),
        lambda: vit_zoo.save(module, "saved"),
        lambda: vit_zoo.verify(module, module),
    ):
        with pytest.raises(CheckFailed) as refusal:
            go()
        assert place in refusal.value.message
        assert refusal.value.code == 3
        assert "\n" not in str(refusal.value)
    assert list(folder.iterdir()) == []


def test_half_precision_does_not_hide_a_difference():
    module = noise(peers.timm_vit().bfloat16())
    assert vit_zoo.load(module).head.weight.dtype == torch.bfloat16
    module.blocks[0].mlp.register_forward_hook(lambda part, args, result: result * 1.001)
    with pytest.raises(CheckFailed, match="first difference in block 0"):
        vit_zoo.load(module)


# Modules that are read, with a part of the result that ours must equal


def whole(out):
    return out


def joint(out):
    return out.pooler_output


READ = {
    "timm in half precision": (lambda: peers.timm_vit().half(), whole),
    "timm in float64": (lambda: peers.timm_vit().double(), whole),
    "timm, a hook that only looks": (lambda: watched(peers.timm_vit()), whole),
    "timm, compiled": (lambda: torch.compile(peers.timm_vit(), backend="eager"), whole),
    "SimpleViT with registers behind the patches": (lambda: peers.simple_vit(registers=2), whole),
    "open_clip's tower": (clip_tower, whole),
    "open_clip's tower, QuickGELU": (lambda: clip_tower(act_layer=open_clip.transformer.QuickGELU), whole),
    "open_clip's tower, mean": (lambda: clip_tower(pool_type="avg", final_ln_after_pool=True), whole),
    "open_clip's tower with tokens": (lambda: clip_tower(output_tokens=True), lambda out: out[0]),
    "DINO": (meta_modules.VisionTransformer, whole),
    "DINO, another eps and act": (lambda: meta_modules.VisionTransformer(eps=1e-4, act=nn.SiLU), whole),
    "DINOv2": (meta_modules.DinoVisionTransformer, whole),
    "DINOv2 in chunks": (lambda: meta_modules.DinoVisionTransformer(chunks=2, registers=3, eps=1e-5), whole),
    "DINOv2, SwiGLU in chunks": (lambda: meta_modules.DinoVisionTransformer(mlp=meta_modules.SwiGLUFFN, chunks=4), whole),
    "ours with a hook that only looks": (lambda: watched(ours()), whole),
}


def watched(module):
    module.blocks[1].register_forward_hook(lambda part, args, result: None)
    return module


@pytest.mark.parametrize("name", READ)
def test_a_module_that_is_read(name, folder):
    make, output = READ[name]
    module = noise(make())
    reading = vit_zoo.load(module).float().eval()
    images = images_for(reading.spec)
    with torch.no_grad():
        wanted = output(copy.deepcopy(module).float()(images))
        assert relative(reading(images), wanted) < 1e-5
    vit_zoo.save(module, "saved")
    with torch.no_grad():
        assert relative(vit_zoo.load("saved").float()(images), wanted) < 1e-5
    (done,) = vit_zoo.export(module, out="a.onnx")
    assert done.report.verdict == "parity"
    (exported,) = onnxruntime.InferenceSession("a.onnx").run(None, {"pixel_values": images.numpy()})
    assert relative(torch.from_numpy(exported), wanted) < 1e-5


def with_text_tower(name):
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}
    vision = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 72, "patch_size": 8}
    if name == "Siglip2":
        return T.Siglip2Model(T.Siglip2Config(vision_config={**vision, "num_patches": 16}, text_config=text))
    vision |= {"image_size": 32}
    config = getattr(T, f"{name}Config")(
        vision_config=vision, text_config=text, **({"projection_dim": 24} if name == "CLIP" else {})
    )
    return getattr(T, f"{name}Model")(config)


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_the_image_tower_of_a_model_of_transformers(name):
    module = noise(with_text_tower(name))
    reading = vit_zoo.load(module)
    images = images_for(reading.spec)
    with torch.no_grad():
        wanted = module.get_image_features(images)
        assert relative(reading(images), getattr(wanted, "pooler_output", wanted)) < 1e-5
    module.vision_model.register_forward_hook(lambda part, args, out: scaled(out))
    with pytest.raises(CheckFailed, match="differs by"):
        vit_zoo.load(module)


def scaled(out):
    out.pooler_output = out.pooler_output * 2
    return out


@pytest.mark.parametrize("make", [lambda: with_text_tower("Siglip2"), lambda: with_text_tower("Siglip2").vision_model])
def test_a_module_that_takes_patches(make):
    assert vit_zoo.load(noise(make()), image_size=32).spec.image_size == (32, 32)


def test_the_image_tower_of_a_model_of_open_clip():
    module = noise(clip_model())
    reading = vit_zoo.load(module)
    images = images_for(reading.spec)
    with torch.no_grad():
        assert relative(reading(images), module.encode_image(images)) < 1e-5
    assert vit_zoo.load(module.visual).spec == reading.spec


def test_mae_drops_no_patches():
    module = T.ViTMAEModel(T.ViTMAEConfig(**{**CLASSES["ViTModel"][1], "hidden_act": "gelu"}))
    before = module.config.mask_ratio
    reading = vit_zoo.load(noise(module))
    assert reading.spec.pos == "learned"
    assert module.config.mask_ratio == before > 0


def decoders():
    sizes = CLASSES["ViTModel"][1]
    return {
        "masked images": lambda: T.ViTForMaskedImageModeling(T.ViTConfig(**sizes, encoder_stride=8)),
        "MAE's decoder": lambda: T.ViTMAEForPreTraining(
            T.ViTMAEConfig(**sizes, decoder_hidden_size=32, decoder_num_attention_heads=2)
        ),
    }


@pytest.mark.parametrize("name", decoders())
def test_a_module_that_does_another_task_is_refused(name):
    module = noise(decoders()[name]())
    with pytest.raises(CheckFailed, match=r"pass the inner model, module\.vit|what is read from it has"):
        vit_zoo.load(module)
    assert vit_zoo.load(module.vit).spec.depth == 3


class Classifier(nn.Module):
    """A usual way to use a backbone: its keys are those of transformers' classifier, its output is another."""

    def __init__(self):
        super().__init__()
        self.vit = built("ViTModel")[0]
        self.config = self.vit.config

    def forward(self, images):
        return self.vit(images).last_hidden_state.mean(1)


class Timm(nn.Module):
    """timm's attributes and names, with a scan over the patches in the place of their order."""

    def __init__(self):
        super().__init__()
        for name, part in peers.timm_vit(**SQUARE).named_children():
            setattr(self, name, part)
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.zeros(1, 17, 48))

    def forward(self, images):
        x = self.patch_embed(images).flip(1)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


@pytest.mark.parametrize("make", [Classifier, Timm])
def test_a_module_of_other_code_with_known_names(make):
    with pytest.raises(CheckFailed, match=r"has outputs of shape|first difference (before block 0|behind the blocks)"):
        vit_zoo.load(noise(make()))


OTHER = {
    "no attributes": lambda: bare(peers.timm_vit()),
    "no blocks": lambda: bare(peers.torchvision_vit()),
    "no config": lambda: bare(built("ViTForImageClassification")[0]),
    "no images": lambda: failing(peers.timm_vit(**SQUARE)),
    "a list of modules": lambda: nn.Sequential(peers.timm_vit(**SQUARE), nn.Softmax(-1)),
    "TorchScript": lambda: torch.jit.trace(peers.timm_vit(**SQUARE).eval(), torch.zeros(1, 3, 32, 32)),
    "traced by torch.fx": lambda: torch.fx.symbolic_trace(peers.timm_vit(**SQUARE)),
    "quantised": lambda: torch.ao.quantization.quantize_dynamic(peers.timm_vit(**SQUARE), {nn.Linear}),
    "without values": lambda: peers.timm_vit(**SQUARE).to("meta"),
    "differential attention": lambda: peers.timm.create_model(
        "vit_dwee_patch16_reg1_gap_256", embed_dim=48, depth=2, num_heads=3, img_size=32
    ),
    "vit-pytorch's SimpleViT with queries and keys normalised": lambda: SimpleViTWithNorms(**NAMED),
    "another network": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
    "no tensors": nn.Identity,
    "Cait": lambda: peers.timm.create_model("cait_xxs24_224", embed_dim=48, depth=2, num_heads=3, img_size=64),
    "DaViT-like positions": lambda: peers.timm.create_model(
        "vit_relpos_base_patch16_224", embed_dim=48, depth=2, num_heads=3, img_size=64
    ),
    "queries with the same keys": lambda: peers.timm_rope_vit(num_heads=4, num_kv_heads=2, qkv_fused=False),
    "relative biases of blocks and shared ones": lambda: peers.timm_beit(use_shared_rel_pos_bias=True),
}


class Bare(nn.Module):
    def forward(self, images):
        return images


def bare(module):
    """The same tensors in a class without attributes or code."""
    made = Bare()
    for name, p in module.named_parameters():
        *path, last = name.split(".")
        part = made
        for step in path:
            if step not in part._modules:
                part.add_module(step, Bare())
            part = part._modules[step]
        part.register_parameter(last, nn.Parameter(p.detach()))
    return made


def failing(module):
    def forward(images):
        raise KeyError("no such\nkey")

    module.forward = forward
    return module


@pytest.mark.parametrize("name", OTHER)
def test_a_module_of_another_class_is_refused_in_one_line(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript and torch.ao are deprecated
        module = OTHER[name]()
    with pytest.raises(VitzooError) as refusal:
        vit_zoo.load(module)
    assert refusal.value.code in (2, 3, 6, 7)
    assert type(module).__name__ in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_read_is_named():
    with pytest.raises(RefusedContent, match=r"has the tensors of dialect timm, but .*torch\.save\(module\.state_dict\(\)"):
        vit_zoo.load(bare(peers.timm_vit()))
    with pytest.raises(RefusedContent, match=r"an RMSNorm of queries or keys"):
        vit_zoo.load(SimpleViTWithNorms(**NAMED))
    with pytest.raises(RefusedContent, match=r"pass the inner model, module\.module"):
        vit_zoo.load(nn.DataParallel(peers.timm_vit()))
    for other in ([], peers.timm_vit().state_dict(), torch.optim.SGD(peers.timm_vit().parameters())):
        with pytest.raises(InputError, match=f"expected a name, a path or a torch module, got {type(other).__name__}"):
            vit_zoo.load(other)
    with pytest.raises(NotRepresentable, match="its activation is ReLU"):
        vit_zoo.load(peers.timm_vit(act_layer="relu"))


def test_stated_facts_do_not_overrule_a_module():
    module = noise(peers.timm_vit())
    for facts in ({"act": "gelu_tanh"}, {"norm_eps": 1e-5}, {"heads": 6}, {"pool": "none"}):
        with pytest.raises((CheckFailed, InputError)):
            vit_zoo.load(module, **facts)
    assert vit_zoo.load(module, heads=3, drop_path=0.5).spec.drop_path == 0.5


def test_a_module_for_another_size_is_compared_at_its_own():
    module = noise(peers.timm_vit())
    assert vit_zoo.load(module, image_size=(64, 96)).spec.image_size == (64, 96)
    assert vit_zoo.load(module, patch_size=(16, 16)).spec.patch_size == (16, 16)
    module.norm.register_forward_hook(lambda part, args, result: result * 2)
    with pytest.raises(CheckFailed):
        vit_zoo.load(module, image_size=(64, 96))


@pytest.mark.parametrize(
    "make",
    [
        lambda: peers.timm_vit(img_size=(36, 47), patch_size=8),
        lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**{**CLASSES["SiglipVisionModel"][1], "image_size": 39})),
        lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**{**CLASSES["CLIPVisionModel"][1], "image_size": 36})),
    ],
)
def test_a_size_that_patches_do_not_divide(make):
    """A convolution leaves out the last rows and columns, as in SigLIP's models for 384 pixels and patches of 14."""
    assert vit_zoo.load(noise(make())).spec.image_size == (32, 40 if "img_size" in str(make.__code__.co_consts) else 32)


def test_the_module_is_left_as_it_was():
    module = noise(peers.timm_vit(drop_path_rate=0.1).half()).train()
    module.blocks[1].eval()
    module.blocks[0].mlp.register_forward_hook(lambda part, args, result: result + torch.rand(()) * 0)
    module.head.weight.grad = torch.ones_like(module.head.weight)
    modes = [part.training for part in module.modules()]
    storages = [p.data_ptr() for p in module.parameters()]
    versions = [p._version for p in module.parameters()]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    state, default = torch.get_rng_state(), torch.backends.cuda.matmul.allow_tf32
    with torch.enable_grad():
        vit_zoo.load(module)
        assert torch.is_grad_enabled()
    assert [part.training for part in module.modules()] == modes
    assert [p.data_ptr() for p in module.parameters()] == storages
    assert [p._version for p in module.parameters()] == versions
    assert all(p.dtype == torch.float16 and p.requires_grad for p in module.parameters())
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cuda.matmul.allow_tf32 == default


def test_a_failed_check_leaves_the_module_as_it_was():
    module = failing(noise(peers.timm_vit(**SQUARE)).train())
    with pytest.raises(RefusedContent, match="does not compute with images of shape"):
        vit_zoo.load(module)
    assert module.training
    assert not module.blocks[0]._forward_pre_hooks


def test_autocast_and_inference_mode_do_not_matter():
    module = noise(peers.timm_vit())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vit_zoo.load(module)
    with torch.inference_mode():
        vit_zoo.load(module)


def test_an_untouched_model_of_ours_is_not_run(monkeypatch):
    """Its config states what it computes; a large one would take seconds at every save."""
    model = noise(ours(pos="rope", pos_covers="patches"))
    monkeypatch.setattr("vit_zoo.loading.module_check.check_module", lambda *args, **words: pytest.fail("it was run"))
    find_source(model)
    for change in (mlp_in_float16, forward_of_a_block, other_norm, subclass):
        with pytest.raises(pytest.fail.Exception, match="it was run"):
            find_source(change(copy.deepcopy(model)))


def test_a_file_is_verified_against_a_module_with_code_of_its_own(folder):
    """The module is the reference, whatever it computes; its tensors alone are not."""
    module = noise(peers.timm_vit(**SQUARE))
    vit_zoo.export(module, out="a.onnx")
    assert vit_zoo.verify("a.onnx", module).ok
    module.head.register_forward_hook(lambda part, args, result: result * 1.5)
    report = vit_zoo.verify("a.onnx", module)
    assert not report.ok


def test_the_limits_are_those_of_the_parity_check():
    from vit_zoo.loading.module_check import FACTOR, HALVES, LIMIT, MOST
    from vit_zoo.parity.tolerance import ILL_CONDITIONED, ILL_FACTOR, RELATIVE, TOLERANCES

    assert (LIMIT, FACTOR, MOST) == (RELATIVE, ILL_FACTOR, ILL_CONDITIONED)
    assert list(HALVES.values()) == [TOLERANCES["fp16"].relative, TOLERANCES["bf16"].relative]
