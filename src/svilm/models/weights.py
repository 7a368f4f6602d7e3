"""Published weights in our encoders: ViViT and VideoMAE for video, BERT for text; and our own, as they were saved.

Tensors are matched by their names in the files.  Those have stayed the same while transformers renamed its
modules, so it does not matter which release of it wrote the files, or is installed.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from svilm.config import Config, build, settings
from svilm.models.published import (
    WeightsError,
    config_folder,
    read_config,
    read_licence,
    read_tensors,
    weights_folder,
)
from svilm.models.text import TextEncoder, TextEncoderConfig, bert_config
from svilm.models.video import Grid, VideoEncoder, VideoEncoderConfig, interpolate_positions

_PIXELS = {
    # ViViT was trained on -1..1.  The preprocessor files published with it disagree between revisions (1/255
    # or 1/127.5, with or without mean and standard deviation), so they are not consulted.
    "vivit": {"pixel_mean": (127.5, 127.5, 127.5), "pixel_std": (127.5, 127.5, 127.5)},
    # ImageNet's mean and standard deviation
    "videomae": {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)},
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_LAYER = {
    "norm1": "layernorm_before",
    "attention.out": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
}
"""Modules of our blocks and those of a published layer, besides query, key and value."""
_PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class LoadReport:
    """What became of a published checkpoint; printed, it lists every tensor that found no partner."""

    source: Path
    """Folder of the files that were read."""
    kind: str
    """"vivit", "videomae" or "bert"."""
    licence: str | None
    """Licence of the weights according to their model card."""
    loaded: tuple[str, ...]
    """Our tensors that were filled."""
    missing: tuple[str, ...]
    """Our tensors that the checkpoint has nothing for; they keep their initial values."""
    unused: tuple[str, ...]
    """Tensors of the checkpoint, by their names in the files, that went nowhere."""
    interpolated: tuple[str, ...]
    """Our tensors that were resized on the way, with both sizes."""

    def describe(self) -> str:
        """One line: what was loaded, from where, and under which licence."""
        total = len(self.loaded) + len(self.missing)
        licence = self.licence or "not stated in these files"
        return f"{self.kind}: {len(self.loaded)} of {total} tensors from {self.source} (licence: {licence})"

    def __str__(self) -> str:
        lines = [self.describe()]
        for title, names in (
            ("resized", self.interpolated),
            ("new here, at their initial values", _folded(self.missing)),
            ("in the checkpoint, not used", _folded(self.unused)),
        ):
            if names:
                lines += [f"  {title}:", *(f"    {name}" for name in names)]
        return "\n".join(lines)


def load_saved(module: nn.Module, file: Path) -> None:
    """Fill a module from the safetensors that svilm wrote of one like it, tensor for tensor.

    Raises WeightsError, which names the file, when it is missing or cut, or is of a module of another shape.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{file}: cannot be read ({error}); save or fetch the model again") from None
    own = module.state_dict()
    wrong = [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    wrong += [f"{name} is missing" for name in _folded(sorted(own.keys() - tensors.keys()))]
    wrong += [f"{name} is not of this model" for name in _folded(sorted(tensors.keys() - own.keys()))]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"{file}: {'; '.join(wrong[:5])}{more}; save or fetch the model again")
    module.load_state_dict(tensors)


def load_video(encoder: VideoEncoder, source: str) -> LoadReport:
    """Fill a video encoder from ViViT or VideoMAE weights: a folder, or an id of the hub.

    Group tokens and grouping blocks are new and keep their initial values.  ViViT's [CLS] and its position go
    unused unless the encoder has `keep_cls`.  The final LayerNorm of a VideoMAE fine-tuned with mean pooling
    is its `fc_norm`, which there came after the mean over tokens.  Positions of other grids are interpolated.
    Raises WeightsError when the encoder's settings are not those of `video_config_of` or files are broken,
    HubError when nothing is found.
    """
    folder, config = weights_folder(source), encoder.config
    published = read_config(folder, "vivit", "videomae")
    _agree(folder, _video_config(published, config), config, "video_config_of")
    kind: str = published.model_type
    theirs = _Tensors(folder, kind, partial(_video_name, kind))
    wanted = _video_names(config.depth)
    if kind == "vivit":
        wanted["position"] = ("embeddings.position_embeddings",)
        if config.keep_cls:
            wanted["cls"] = ("embeddings.cls_token",)
    elif "layernorm.weight" not in theirs.tensors:  # mean pooling, without the classifier that has the norm
        wanted = {ours: names for ours, names in wanted.items() if not ours.startswith("norm.")}
    _add_zero_biases(theirs.tensors, config)
    state = theirs.take(wanted)
    state["patch.weight"] = state["patch.weight"].flatten(1)  # from the kernel of a Conv3d
    grid = _published_grid(published)
    unused: tuple[str, ...] = ()
    if kind == "videomae":  # its positions are fixed sinusoids, which no file holds
        table = _sinusoids(math.prod(grid), config.width)
    else:
        cls_position, table = state["position"][0, :1], state["position"][0, 1:]
        if config.keep_cls:
            state["cls"] = state["cls"][0] + cls_position
        else:
            unused = (theirs.file_names["embeddings.position_embeddings"] + "[:, 0]",)
    state["position"], resized = _positions(folder, table, grid, config.grid)
    return theirs.fill(encoder, state, unused, resized)


def load_text(encoder: TextEncoder, source: str) -> LoadReport:
    """Fill a text encoder from BERT weights, whatever heads they carry: a folder, or an id of the hub.

    Raises WeightsError when the encoder's settings are not those of `text_config_of` or files are broken,
    HubError when nothing is found.
    """
    folder = weights_folder(source)
    published = read_config(folder, "bert")
    _agree(folder, _text_config(published, encoder.config), encoder.config, "text_config_of")
    theirs = _Tensors(folder, "bert", _bert_name)
    return theirs.fill(encoder, theirs.take({f"bert.{name}": (name,) for name in encoder.bert.state_dict()}))


def video_config_of(source: str, base: VideoEncoderConfig | None = None) -> VideoEncoderConfig:
    """Settings of a video encoder that `load_video` can fill from ``source`` (a folder, or an id of the hub).

    Width, depth, heads, tubelet, activation, epsilon and pixel normalisation are the checkpoint's.  All else
    comes from ``base``: groups, grouping, and the size of its clips, to which positions are interpolated.
    Without a base the clips are as long and as large as the checkpoint's.  Raises WeightsError for another
    kind of checkpoint, HubError when nothing is found.
    """
    return _video_config(read_config(config_folder(source), "vivit", "videomae"), base)


def text_config_of(source: str, base: TextEncoderConfig | None = None) -> TextEncoderConfig:
    """Settings of a text encoder that `load_text` can fill from ``source``; dropout comes from ``base``.

    Raises WeightsError for another kind of checkpoint than BERT, HubError when nothing is found.
    """
    return _text_config(read_config(config_folder(source), "bert"), base or TextEncoderConfig())


# Settings


def _video_config(published: Any, base: VideoEncoderConfig | None) -> VideoEncoderConfig:
    if published.hidden_act not in _ACTIVATIONS or published.num_channels != 3:
        raise WeightsError(
            f"weights with hidden_act {published.hidden_act!r} and {published.num_channels} channels are not "
            f"supported; allowed: {', '.join(_ACTIVATIONS)}, and 3 channels"
        )
    tubelet, grid = _published_tubelet(published), _published_grid(published)
    if base is None:
        base = VideoEncoderConfig()
    else:
        grid = _grid_of_same_clips(base, tubelet)
    depth = published.num_hidden_layers
    theirs = {
        "width": published.hidden_size,
        "depth": depth,
        "heads": published.num_attention_heads,
        "mlp_ratio": published.intermediate_size / published.hidden_size,
        "tubelet": tubelet,
        "grid": grid,
        # each grouping block at the same share of the depth as before, so the last one stays at the end
        "group_after": tuple(sorted({max(1, round(n * depth / base.depth)) for n in base.group_after})),
        "activation": _ACTIVATIONS[published.hidden_act],
        "norm_eps": published.layer_norm_eps,
        **_PIXELS[published.model_type],
    }
    return build(VideoEncoderConfig, {**base.model_dump(), **theirs})


def _text_config(published: Any, base: TextEncoderConfig) -> TextEncoderConfig:
    theirs = {
        "vocabulary": published.vocab_size,
        "width": published.hidden_size,
        "depth": published.num_hidden_layers,
        "heads": published.num_attention_heads,
        "positions": published.max_position_embeddings,
    }
    config = build(TextEncoderConfig, {**base.model_dump(), **theirs})
    ours = bert_config(config)
    for name in ("hidden_act", "intermediate_size", "type_vocab_size", "layer_norm_eps"):
        there, here = getattr(published, name), getattr(ours, name)
        if there != here:
            raise WeightsError(f"weights with {name} {there!r} are not supported; it must be {here!r}")
    return config


def _grid_of_same_clips(base: VideoEncoderConfig, tubelet: Grid) -> Grid:
    frames, high, wide = (n * size for n, size in zip(base.grid, base.tubelet, strict=True))
    if frames % tubelet[0] or high % tubelet[1] or wide % tubelet[2]:
        raise WeightsError(
            f"clips of {frames} frames of {high}x{wide} (grid {base.grid} of tubelets {base.tubelet}) do not "
            f"divide into the tubelets of the weights, {tubelet}; choose multiples"
        )
    return frames // tubelet[0], high // tubelet[1], wide // tubelet[2]


def _published_tubelet(published: Any) -> Grid:
    if published.model_type == "videomae":
        return (published.tubelet_size, *_pair(published.patch_size))
    frames, high, wide = published.tubelet_size
    return frames, high, wide


def _published_grid(published: Any) -> Grid:
    frames, high, wide = _published_tubelet(published)
    image_high, image_wide = _pair(published.image_size)
    return published.num_frames // frames, image_high // high, image_wide // wide


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _agree(folder: Path, theirs: Config, ours: Config, remedy: str) -> None:
    different = [
        f"{name} is {here} here and {there} there"
        for (name, there, _), (_, here, _) in zip(settings(theirs), settings(ours), strict=True)
        if there != here
    ]
    if different:
        raise WeightsError(
            f"the encoder is not made for the weights in {folder}: {'; '.join(different)}. "
            f"Build it with the settings that {remedy}({str(folder)!r}, base) gives"
        )


# Tensors


class _Tensors:
    """Tensors of a checkpoint by canonical names.  They are taken out; what stays behind was not used."""

    def __init__(self, folder: Path, kind: str, canonical: Callable[[str], str]) -> None:
        raw = read_tensors(folder)
        self.folder, self.kind = folder, kind
        self.tensors = {canonical(name): tensor for name, tensor in raw.items()}
        self.file_names = {canonical(name): name for name in raw}
        if len(self.tensors) != len(raw):
            raise WeightsError(f"{folder} holds some tensors twice, under different names")

    def take(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
        """Our tensors, each made of the published ones named for it, put together along the rows."""
        absent = [name for names in wanted.values() for name in names if name not in self.tensors]
        if absent:
            raise WeightsError(f"the weights in {self.folder} lack {', '.join(_folded(absent))}")
        return {ours: torch.cat([self.tensors.pop(name) for name in names]) for ours, names in wanted.items()}

    def fill(
        self,
        module: nn.Module,
        state: Mapping[str, Tensor],
        unused: tuple[str, ...] = (),
        interpolated: tuple[str, ...] = (),
    ) -> LoadReport:
        """Copy ``state`` into the module's parameters and say what became of everything."""
        own = dict(module.named_parameters())
        wrong = [
            f"{name} is {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            for name, tensor in state.items()
            if tensor.shape != own[name].shape
        ]
        if wrong:
            raise WeightsError(f"{self.folder}: the weights do not fit their config.json: {'; '.join(wrong)}")
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)
        return LoadReport(
            source=self.folder,
            kind=self.kind,
            licence=read_licence(self.folder),
            loaded=tuple(sorted(state)),
            missing=tuple(sorted(own.keys() - state.keys())),
            unused=tuple(sorted([*unused, *(self.file_names[name] for name in self.tensors)])),
            interpolated=interpolated,
        )


def _video_name(kind: str, name: str) -> str:
    """Name in a file -> name in ViViT without heads."""
    name = name.removeprefix(f"{kind}.")
    if kind == "videomae":
        name = re.sub(r"\.q_bias$", ".query.bias", re.sub(r"\.v_bias$", ".value.bias", name))
        name = re.sub(r"^fc_norm\.", "layernorm.", name)
    return name


def _bert_name(name: str) -> str:
    """Name in a file -> name in BertModel; the first files were converted from TensorFlow."""
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)).removeprefix("bert.")


def _video_names(depth: int) -> dict[str, tuple[str, ...]]:
    """Our tensors and the published ones that make them."""
    modules: dict[str, tuple[str, ...]] = {
        "patch": ("embeddings.patch_embeddings.projection",),
        "norm": ("layernorm",),
    }
    for n in range(depth):
        layer = f"encoder.layer.{n}"
        modules[f"blocks.{n}.attention.qkv"] = tuple(f"{layer}.attention.attention.{p}" for p in _PROJECTIONS)
        modules |= {f"blocks.{n}.{ours}": (f"{layer}.{theirs}",) for ours, theirs in _LAYER.items()}
    return {
        f"{ours}.{leaf}": tuple(f"{name}.{leaf}" for name in theirs)
        for ours, theirs in modules.items()
        for leaf in ("weight", "bias")
    }


def _add_zero_biases(tensors: dict[str, Tensor], config: VideoEncoderConfig) -> None:
    """Zeros for the projections that have a bias in no layer, such as VideoMAE's keys."""
    for projection in _PROJECTIONS:
        biases = [f"encoder.layer.{n}.attention.attention.{projection}.bias" for n in range(config.depth)]
        if not any(bias in tensors for bias in biases):
            tensors |= {bias: torch.zeros(config.width) for bias in biases}


def _sinusoids(count: int, width: int) -> Float[Tensor, "count width"]:
    """Positions of VideoMAE: tokens numbered in one row, sines in the even columns and cosines in the odd."""
    column = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * 10000.0 ** (-2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def _positions(
    folder: Path, table: Float[Tensor, "tokens width"], theirs: Grid, ours: Grid
) -> tuple[Float[Tensor, "steps rows columns width"], tuple[str, ...]]:
    """The table on our grid, and what was done to it."""
    if len(table) != math.prod(theirs):
        raise WeightsError(f"{folder}: {len(table)} positions, but a grid of {theirs} by config.json")
    grid = table.reshape(*theirs, -1)
    if theirs == ours:
        return grid, ()
    sizes = " to ".join("x".join(map(str, size)) for size in (theirs, ours))
    return interpolate_positions(grid, ours), (f"position, from {sizes}",)


def _folded(names: Sequence[str]) -> tuple[str, ...]:
    """Names that differ in their first number only, on one line: layer.{0,1}.weight."""
    numbers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        before, number, after = re.split(r"(\d+)", name, maxsplit=1) if re.search(r"\d", name) else (name, "", "")
        numbers.setdefault((before, after), []).append(number)
    return tuple(
        before + (found[0] if len(found) == 1 else "{" + ",".join(sorted(found, key=int)) + "}") + after
        for (before, after), found in numbers.items()
    )
