"""Artifacts, that is exported files: their description, and the interface that maps images to named arrays."""

from __future__ import annotations

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent, printable
from vit_zoo.files.sniff import parse_json

if TYPE_CHECKING:
    import numpy as np

    from vit_zoo.files.image_inputs import Images
    from vit_zoo.model.classification import Prediction
    from vit_zoo.model.config import ModelConfig

    Array = np.ndarray[Any, np.dtype[Any]]

EMBEDDED = "vit_zoo.json"  # the name of the extra file in TorchScript and .pt2 archives
SELFCHECK = "vit_zoo.selfcheck"  # the metadata key of the self-check in an ONNX file
MAX_METADATA = 4_194_304  # bytes
ONE_SIZE = 'takes images of one size at a time; export the model with dynamic="patches"'


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file. `config` is None for other tools' files; `export` holds the export options of ours.

    Raises RefusedContent for export options of other types than `formats.export_details` has.
    """

    path: Path
    format: str
    config: ModelConfig | None
    export: Mapping[str, Any]
    graph: bool = False  # an ONNX graph, which can be read without running it
    selfcheck: str | None = None  # the self-check, as JSON that is not parsed yet

    def __post_init__(self) -> None:
        if self.config is not None:
            from vit_zoo.formats.export_details import check_export

            check_export(self.export, self.config, self.path)

    @property
    def rounded(self) -> bool:
        """Whether this is a file of ours with int8 weights, which differ from the model's."""
        return str(self.export.get("precision")).startswith("int8")

    @property
    def takes_patches(self) -> bool:
        """Whether this is a file of ours that takes patches of images of any grids, padded to one length."""
        return self.config is not None and self.export.get("patches") is True

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the one beside it that holds its weights, if there is one."""
        data = self.export.get("data")
        return (self.path,) if data is None else (self.path, self.path.parent / data)

    def known_config(self) -> ModelConfig:
        """Return spec, preprocessing, labels and origin. Raises RefusedContent if the file does not contain them."""
        if self.config is None:
            raise RefusedContent("has no vit_zoo metadata", where=self.path)
        return self.config


Axes = tuple["int | str | None", ...]  # lengths, and names of free axes


class Artifact(ABC):
    """An opened artifact."""

    input_name, input_type = "pixel_values", "float32"

    def __init__(self, about: Description) -> None:
        self.about = about

    @property
    def path(self) -> Path:
        return self.about.path

    @property
    def config(self) -> ModelConfig:
        """The config, as `Description.known_config` returns it."""
        return self.about.known_config()

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    @property
    def input_shape(self) -> Axes:
        """The axes of the input."""
        spec = self.config.spec
        return "batch", spec.channels, *spec.image_size

    @property
    def output_shapes(self) -> dict[str, Axes]:
        """The axes of each output, as far as the file states them."""
        return dict.fromkeys(self.outputs, ())

    def predict(self, images: Images, *, top: int | None = None, fast_crop: bool = False) -> list[Prediction]:
        """Classify images with the labels and the preprocessing in the file. The file stays open; several threads may use it.

        `vit_zoo.predict` takes opened files too, with facts that a file does not state.

        Args:
            images: One image or several, as in `vit_zoo.predict`.
            top: Number of classes to return for each image; 5 by default. It does not apply to a regression.
            fast_crop: Resize only what the crop keeps, as in `vit_zoo.predict`.

        Raises:
            InputError: The file gives no classes, states no preprocessing, or an image is of a kind that is not supported.
            RefusedContent: An image cannot be read, or the outputs are not finite.
        """
        from vit_zoo.formats.classifier import artifact_classifier
        from vit_zoo.model.classification import predictions

        return predictions(artifact_classifier(self), images, top=top, fast_crop=fast_crop)

    def embed(self, images: Images, *, output: str | None = None) -> Array:
        """Return one vector of features for each image, float32 [images, width]. The file stays open; threads may share it.

        `vit_zoo.embed` does it for any number of images, and writes the features to a file.

        Args:
            images: One image or several, as in `vit_zoo.predict`.
            output: The output to take them from, as in `vit_zoo.embed`: `pooler_output`, `class_token`, `patch_mean`, ...; by
                default the first of `image_embeds`, `pooler_output` and the class token that the file has.

        Raises:
            InputError: The file does not have this output, states no preprocessing, or an image is of a kind that is not
                supported.
            RefusedContent: An image cannot be read, or the outputs are not finite.
        """
        from vit_zoo.formats.features import embedded_images

        return embedded_images(self, images, output)

    @property
    def fixed_batch(self) -> int | None:
        """The number of images that the file takes at once, if it takes no other."""
        axes = self.input_shape
        return axes[0] if axes and isinstance(axes[0], int) else None

    def run_any(self, pixel_values: Array) -> dict[str, Array]:
        """Return the outputs for any number of images, also of a file with a fixed batch. Otherwise as `run`."""
        size, count = self.fixed_batch, len(pixel_values)
        if size is None or size == count:
            return self.run(pixel_values)
        import numpy as np

        filled = np.concatenate([pixel_values, np.repeat(pixel_values[:1], -count % size, axis=0)])
        parts = [self.run(filled[start : start + size]) for start in range(0, len(filled), size)]
        return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

    def patch_inputs(self, images: Images, *, max_patches: int = 256) -> dict[str, Array]:
        """Prepare images, each with its own aspect ratio, as one batch for a file exported with `dynamic="patches"`.

        Each image is resized to the largest grid of patches with its aspect ratio that has at most `max_patches`, as by
        transformers' processor of SigLIP 2 NaFlex, with mean, std and interpolation of the file.

        Args:
            images: One image or several, as in `vit_zoo.predict`.
            max_patches: The most patches of an image.

        Returns:
            `pixel_values` float32 [images, patches, height x width x channels of a patch], padded to the longest sequence;
            `pixel_attention_mask` int32 [images, patches], 0 for padding; `spatial_shapes` int64 [images, 2], the grids.

        Raises:
            InputError: The file takes images of one size at a time, states no preprocessing, or an image is of a kind that is
                not supported.
            RefusedContent: An image cannot be read.
        """
        from vit_zoo.files.image_inputs import image_inputs
        from vit_zoo.graph.patch_inputs import grid_for, padded

        if not self.about.takes_patches:
            raise InputError(ONE_SIZE, where=self.path)
        if max_patches < 1:
            raise InputError(f"max_patches must be at least 1, got {max_patches}")
        preprocess, patch = self.config.known_preprocess(), self.config.spec.patch_size
        prepared = []
        for each in image_inputs(images):
            image = each.read()
            rows, columns = grid_for((image.height, image.width), patch, max_patches)
            size = rows * patch[0], columns * patch[1]
            prepared.append(preprocess.model_copy(update={"size": size, "resize_to": None})(image))
        return padded(prepared, patch)

    def run_patches(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for patches of images of any grids, of a file exported with `dynamic="patches"`.

        Args:
            inputs: The three arrays that `patch_inputs` returns.

        Returns:
            The outputs by name. In an output with a row for each token, the rows of padding have no meaning.

        Raises:
            InputError: The file takes images of one size at a time, or the arrays do not fit together.
            RefusedContent: The file cannot be run.
        """
        raise InputError(ONE_SIZE, where=self.path)

    def close(self) -> None:  # noqa: B027 - most formats have nothing to release
        """End the child process that runs the file, if there is one; also from another thread, whose run is `Stopped`.

        It ends by itself when the result of `open` is no longer used.
        """

    def __repr__(self) -> str:
        config = self.about.config
        name = "" if config is None else f" {config.name}, {self.about.export.get('precision', 'fp32')},"
        outputs = ", ".join(f"{name} {axes_text(axes)}".rstrip() for name, axes in self.output_shapes.items())
        values = f"{self.input_name} {axes_text(self.input_shape)} {self.input_type} -> {outputs}"
        return printable(f"<{self.about.format} file {self.path.name}:{name} {size_text(self.about.files)}, {values}>")

    @abstractmethod
    def run(self, pixel_values: Array) -> dict[str, Array]:
        """Return the outputs by name.

        Args:
            pixel_values: Normalised images, float32 [batch, channels, height, width]; of a file with preprocessing inside,
                uint8 [batch, height, width, channels].

        Raises:
            InputError: The images have another shape than the file takes.
            RefusedContent: The file cannot be run.
        """


def axes_text(axes: Axes) -> str:
    """Return the axes of an input or an output as text; nothing if they are not known."""
    return f"[{', '.join('?' if axis is None else str(axis) for axis in axes)}]" if axes else ""


def size_text(files: Iterable[Path]) -> str:
    """Return the size of files, in megabytes or kilobytes."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def report_path(artifact: Path) -> Path:
    """Return the path of the parity report of a file."""
    return artifact.with_name(artifact.name + ".parity.json")


def config_from(text: str, *, where: Path) -> ModelConfig:
    """Parse the config in an artifact's metadata. Raises RefusedContent if it is not valid."""
    from vit_zoo.model.config import ModelConfig

    document = metadata_value(text, where=where)
    if not isinstance(document, dict):
        raise RefusedContent("metadata is not a JSON object", where=where)
    try:
        return ModelConfig.parse(document, where=where)
    except InputError as error:  # a file's metadata is its content, not an argument
        raise RefusedContent(error.message, where=where, hint=error.hint) from None


def metadata_value(text: str, *, where: Path) -> Any:
    """Parse JSON in an artifact's metadata. Raises RefusedContent if it is not valid."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise RefusedContent(f"metadata is not valid JSON: {error}", where=where) from None


def embedded(config: ModelConfig, export: Mapping[str, Any]) -> str:
    """Return the text of the extra file in an archive, as `describe_archive` reads it."""
    return json.dumps({**config.document(), "vit_zoo.export": dict(export)}, sort_keys=True)


def selfcheck_text(export: Mapping[str, Any]) -> str | None:
    """Return the self-check among the export options in an archive as JSON, or None."""
    return json.dumps(export["selfcheck"]) if isinstance(export, Mapping) and "selfcheck" in export else None


def describe_archive(path: Path, kind: str) -> Description:
    """Read the description in a TorchScript or .pt2 archive as a zip file; none of its code runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == EMBEDDED]
            if not names:
                return Description(path, kind, None, {})
            info = archive.getinfo(names[0])
            if info.file_size > MAX_METADATA:
                raise RefusedContent(f"has {info.file_size:,} bytes of metadata; at most {MAX_METADATA:,} are read", where=path)
            text = archive.read(info).decode()
    except RefusedContent:
        raise
    except Exception as error:  # zipfile raises more than it documents
        raise RefusedContent(f"damaged archive: {error}", where=path) from None
    config = config_from(text, where=path)
    export = metadata_value(text, where=path).get("vit_zoo.export", {})
    return Description(path, kind, config, export, selfcheck=selfcheck_text(export))
