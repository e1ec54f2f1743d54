"""Attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers"): where a model looks in an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option
from vit_zoo.formats.artifact import Artifact
from vit_zoo.inference.predict import described, in_eval_mode

if TYPE_CHECKING:
    import numpy as np

    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.model.vit import ViT

    Array = np.ndarray[Any, np.dtype[Any]]


def rollout(maps: Sequence[Array]) -> Array:
    """Return the attention rollout of a model, float64 [batch, tokens, tokens]: how much of each input token is in each output.

    With A_l the mean over heads of the attention of block l, and I for its residual connection,

        B_l = A_l + I, with each row divided by its sum
        rollout = B_L ... B_2 B_1

    `maps` are the attention weights of all blocks in order, [batch, heads, tokens (queries), tokens (keys)] each.
    """
    import numpy as np

    flow = np.eye(maps[0].shape[-1])
    for weights in maps:
        mixed = weights.mean(axis=1, dtype="<f8") + np.eye(weights.shape[-1])
        flow = mixed / mixed.sum(axis=-1, keepdims=True) @ flow
    return flow


def patch_attention(flow: Array, spec: ViTSpec, grid: tuple[int, int]) -> Array:
    """Return how much of each patch is in what represents the image, from a rollout, float64 [batch, rows, columns].

    This is the row of the class token; of a model without one, the mean of the rows of all patches. Class token, distillation
    token and registers are left out of the columns.
    """
    first = spec.prefix_tokens
    rows = flow[:, 0] if spec.class_token else flow[:, first:].mean(axis=1)
    return rows[:, first:].reshape(len(flow), *grid)


@dataclass(frozen=True)
class AttentionSource:
    """A model, or an opened file, that gives the attention of all its blocks."""

    config: ModelConfig
    preprocess: Preprocess
    run: Callable[[Array], Sequence[Array]]  # from prepared images to the attention weights of each block
    prepares: bool = False  # whether it prepares images itself

    def of(self, prepared: Array) -> Array:
        """Return the attention to each patch of prepared images, float64 [batch, rows, columns]."""
        (height, width), (p, q) = self.preprocess.size, self.config.spec.patch_size
        return patch_attention(rollout(self.run(prepared)), self.config.spec, (height // p, width // q))


def attention_source(model: Artifact | ViT, facts: Mapping[str, Any]) -> AttentionSource:
    """Return a model, or an opened file, as a source of attention. `facts` are what the user states about it.

    Raises InputError for a file without the outputs `attn.N` of all blocks, and where the preprocessing is not known.
    """
    own = model.about.config if isinstance(model, Artifact) else model.config
    if own is None:
        assert isinstance(model, Artifact)
        cause = "is a file of another tool, which does not state what its outputs are; attention needs an export of vitzoo"
        raise InputError(cause, where=model.path)
    config = described(model, own, facts)
    names = tuple(f"attn.{block}" for block in range(config.spec.depth))
    if isinstance(model, Artifact):
        _check_outputs(model, config, names)
        return AttentionSource(config, config.known_preprocess(), _of_file(model, names), "include" in model.about.export)
    return AttentionSource(config, config.known_preprocess(), _of_model(model, names))


def _check_outputs(artifact: Artifact, config: ModelConfig, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in artifact.outputs]
    if not missing:
        return
    needed = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    outputs = Option("outputs", f"['{config.output}', 'attn.*']", f"--outputs '{config.output},attn.*'")
    cause = f"attention needs the outputs {needed}, and the file has no {missing[0]}"
    raise InputError(cause, where=artifact.path, hint=f"export the model with {outputs}", options=[outputs])


def _of_file(artifact: Artifact, names: Sequence[str]) -> Callable[[Array], list[Array]]:
    def run(prepared: Array) -> list[Array]:
        values = artifact.run_any(prepared)
        return [values[name] for name in names]

    return run


def _of_model(model: ViT, names: Sequence[str]) -> Callable[[Array], list[Array]]:
    import torch

    def run(prepared: Array) -> list[Array]:
        like = next(model.parameters())
        with torch.inference_mode(), in_eval_mode(model):
            values = model.features(torch.from_numpy(prepared).to(like.device, like.dtype), *names)
        return [values[name].float().cpu().numpy() for name in names]

    return run
