"""The video encoder and its grouping block, forward and backward, against the encoders of others at equal shape.

All have as many blocks of the same width, as many heads, and as many tokens of video; all start from random weights.
Ours carries its group tokens and grouping blocks, which the others lack.  So the best of them is measured again with
as many more tokens, against ours whole and without its grouping blocks, and once more with GroupViT's grouping blocks
where ours stand.  Ours takes the GELU of the one beside it: on a processor the tanh form, that of ViViT, takes twice
the time of the exact one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from svilm.bench import clones
from svilm.bench.frame import How, Row, lower, not_measured, seconds_of
from svilm.models.dual import SIZES
from svilm.models.grouping import GroupingBlock
from svilm.models.layers import Activation, Block
from svilm.models.video import VideoEncoder, VideoEncoderConfig

MOST_OF_ENCODER = 6.0
"""Percent of the encoder's time that the grouping blocks may take."""


@dataclass(frozen=True)
class Shape:
    """What all encoders have in common; tubelets are 2 x 16 x 16."""

    clips: int
    frames: int
    side: int
    width: int
    depth: int
    heads: int
    groups: int
    """Of ours alone."""
    size: str = ""
    """Name of the model whose encoder it is."""

    @classmethod
    def of(cls, size: str, clips: int, frames: int = 0) -> "Shape":
        """That of one of our models, with fewer frames than it is trained on where that would take too long."""
        c = SIZES[size].video
        return cls(clips, frames or 2 * c.grid[0], 16 * c.grid[1], c.width, c.depth, c.heads, c.groups, size)

    def __str__(self) -> str:
        named = f"`{self.size}`, " if self.size else ""
        return f"{named}{self.clips} x {self.frames} frames of {self.side}, {self.depth} blocks of {self.width}"

    def config(self, activation: Activation = "gelu_tanh") -> VideoEncoderConfig:
        """Ours, in this shape."""
        blocks = tuple(sorted({max(1, self.depth // 2), max(1, self.depth * 3 // 4), self.depth}))
        grid = (self.frames // 2, self.side // 16, self.side // 16)
        return VideoEncoderConfig(
            width=self.width, depth=self.depth, heads=self.heads, grid=grid, groups=self.groups, group_after=blocks,
            activation=activation,
        )  # fmt: skip


QUICK = Shape(1, 4, 32, 32, 2, 2, 4)
SHAPES = (Shape.of("tiny", 64), Shape.of("small", 2), Shape.of("base", 1, frames=8))
"""The encoders that we train: `tiny` on its recipe's batch, `base` on a quarter of its frames."""


def rows(how: How) -> Iterator[Row]:
    """Single blocks and whole encoders of our sizes, then the grouping block at the paper's."""
    for shape in (QUICK,) if how.quick else SHAPES:
        yield from _blocks(shape, how)
        yield from _encoders(shape, how)
        yield from _share(shape.config("gelu"), shape.clips, how)
    yield from _grouping(how)


def _blocks(shape: Shape, how: How) -> Iterator[Row]:
    """One transformer block on the same tokens, which is where nearly all of the time goes."""
    s = shape
    tokens = s.frames // 2 * (s.side // 16) ** 2
    x = torch.randn(s.clips, tokens, s.width, requires_grad=True)
    name = f"transformer block, {s.clips} x {tokens} tokens of {s.width}, against"
    peers: dict[str, tuple[Activation, nn.Module]] = {
        "ViViT's": ("gelu_tanh", first_layer(vivit(s))),
        "VideoMAE's": ("gelu", first_layer(videomae(s))),
    }
    for peer, (activation, layer) in peers.items():
        ours = Block(s.width, s.heads, 4.0, activation, 1e-6)
        mine, theirs = seconds_of([_step(_forward(each, x)) for each in (ours, layer)], how)
        yield lower(f"{name} {peer}", mine, theirs, "s")


def first_layer(model: nn.Module) -> nn.Module:
    """The first transformer block of an encoder of transformers."""
    return next(module for name, module in model.named_modules() if name.endswith(("layer.0", "layers.0")))


def _encoders(shape: Shape, how: How) -> Iterator[Row]:
    s = shape
    torch.manual_seed(0)
    video = torch.randint(0, 256, (s.clips, s.frames, s.side, s.side, 3), dtype=torch.uint8)
    pixels = video.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    works: dict[str, Callable[[], Tensor]] = {
        "exact": _forward(VideoEncoder(s.config("gelu")), video),
        "tanh": _forward(VideoEncoder(s.config("gelu_tanh")), video),
        "no grouping": _forward(without_grouping(VideoEncoder(s.config("gelu"))), video),
    }
    more = f"VideoMAE with {s.groups} more tokens"
    peers: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        "ViViT": (lambda: vivit(s), pixels),
        "VideoMAE": (lambda: videomae(s), pixels),
        more: (lambda: with_more_tokens(videomae(s), s.groups, s.width), pixels),
        f"{more} and GroupViT's grouping blocks": (lambda: _with_grouping_of_groupvit(s, how), pixels),
        # has a token for each frame, not for every two: half the frames are as many tokens
        "Frozen in Time": (
            lambda: clones.space_time_transformer(how.peers, s.frames // 2, s.side, s.depth, s.width, s.heads),
            pixels[:, ::2],
        ),
    }
    absent = {}
    for peer, (make, seen) in peers.items():
        try:
            works[peer] = _forward(make(), seen)
        except clones.Absent as error:
            absent[peer] = str(error)
    seconds = seconds_of([_step(work) for work in works.values()], how)
    spent = dict(zip(works, seconds, strict=True))
    pairs = [(f"video encoder, {s}", "tanh" if peer == "ViViT" else "exact", peer) for peer in peers]
    pairs.append((f"video encoder without grouping blocks, {s}", "no grouping", more))
    for name, ours, peer in pairs:
        if peer in spent:
            yield lower(f"{name}, against {peer}", spent[ours], spent[peer], "s")
        else:
            yield not_measured(f"{name}, against {peer}", absent[peer])


def _forward(model: nn.Module, seen: Tensor) -> Callable[[], Tensor]:
    model.train()
    return lambda: sum_of(model(seen))


def sum_of(found: Any) -> Tensor:
    """All tokens that an encoder returns, added up: of ours those of the video and the groups."""
    states = getattr(found, "last_hidden_state", found)
    if isinstance(states, Tensor):
        return states.sum()
    tokens, groups, *_ = found
    return tokens.sum() + groups.sum()


def _step(work: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: work().backward()


def vivit(shape: Shape) -> nn.Module:
    """ViViT of transformers."""
    from transformers import VivitConfig, VivitModel

    s = shape
    return VivitModel(
        VivitConfig(
            image_size=s.side, num_frames=s.frames, tubelet_size=[2, 16, 16], hidden_size=s.width,
            num_hidden_layers=s.depth, num_attention_heads=s.heads, intermediate_size=4 * s.width,
            attn_implementation="sdpa",
        ),
        add_pooling_layer=False,
    )  # fmt: skip


def videomae(shape: Shape) -> nn.Module:
    """VideoMAE's encoder of transformers, which sees all tokens here as it does after its pre-training."""
    from transformers import VideoMAEConfig, VideoMAEModel

    s = shape
    return VideoMAEModel(
        VideoMAEConfig(
            image_size=s.side, num_frames=s.frames, tubelet_size=2, patch_size=16, hidden_size=s.width,
            num_hidden_layers=s.depth, num_attention_heads=s.heads, intermediate_size=4 * s.width,
            attn_implementation="sdpa",
        )
    )  # fmt: skip


def with_more_tokens(model: nn.Module, count: int, width: int) -> nn.Module:
    """An encoder of transformers whose blocks carry ``count`` tokens of no place beside those of the video."""
    more = torch.randn(1, count, width)

    def add(_: nn.Module, seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.cat([more.expand(len(seen[0]), -1, -1), seen[0]], dim=1), *seen[1:]

    first_layer(model).register_forward_pre_hook(add)
    return model


def with_grouping(model: nn.Module, count: int, after: Sequence[int], blocks: Sequence[nn.Module]) -> nn.Module:
    """The same with a grouping block behind each of these transformer blocks, for the ``count`` tokens added."""
    layers = [module for name, module in model.named_modules() if re.search(r"\blayers?\.\d+$", name)]
    for number, block in zip(after, blocks, strict=True):
        layers[number - 1].register_forward_hook(partial(_group, block, count))
    return model


def _group(block: nn.Module, count: int, _layer: nn.Module, _seen: Any, x: Tensor) -> Tensor:
    return torch.cat([block(x[:, count:], x[:, :count])[0], x[:, count:]], dim=1)


def _with_grouping_of_groupvit(shape: Shape, how: How) -> nn.Module:
    s, after = shape, shape.config().group_after
    blocks = [clones.grouping_block(how.peers, s.width, s.groups, s.heads) for _ in after]
    model = with_grouping(with_more_tokens(videomae(s), s.groups, s.width), s.groups, after, blocks)
    model.grouping = nn.ModuleList(blocks)  # so that they train with it
    return model


class _Untouched(nn.Module):
    """In a grouping block's place: does nothing."""

    def forward(self, groups: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return groups, tokens.new_zeros(len(groups), groups.shape[1], tokens.shape[1])


def without_grouping(encoder: VideoEncoder) -> VideoEncoder:
    """Ours with its group tokens, which no grouping block updates any more."""
    encoder.grouping = nn.ModuleList(_Untouched() for _ in encoder.grouping)
    return encoder


def _grouping(how: How) -> Iterator[Row]:
    """The grouping block against GroupViT's, and its share of the encoder, at the paper's shape."""
    config = QUICK.config() if how.quick else SIZES["base"].video
    tokens, groups, ours = _tokens_and_groups(config, 1)
    works: list[Callable[[], Tensor]] = [lambda: ours(groups, tokens)[0].sum()]
    size = f"{tokens.shape[1]} tokens and {config.groups} groups of width {config.width}"
    name = f"grouping block, {size}, against GroupViT's"
    try:
        peer = clones.grouping_block(how.peers, config.width, config.groups, config.heads)
    except clones.Absent as error:
        yield not_measured(name, str(error))
    else:
        works.append(lambda: peer(tokens, groups)[0].sum())
        mine, theirs = seconds_of([_step(work) for work in works], how)
        yield lower(name, mine, theirs, "s")
    yield from _share(config, 1, how)


def _share(config: VideoEncoderConfig, clips: int, how: How) -> Iterator[Row]:
    """What the grouping blocks take of an encoder's time."""
    tokens, groups, grouping = _tokens_and_groups(config, clips)
    block = Block(config.width, config.heads, config.mlp_ratio, config.activation, config.norm_eps)
    both = torch.cat([groups, tokens], dim=1).detach().requires_grad_()
    works: list[Callable[[], Tensor]] = [lambda: grouping(groups, tokens)[0].sum(), lambda: block(both).sum()]
    mine, layer = seconds_of([_step(work) for work in works], how)
    number = len(config.group_after)
    share = 100 * number * mine / (config.depth * layer + number * mine)
    size = f"{clips} x {tokens.shape[1]} tokens of {config.width}"
    goal = f"{number} of them beside {config.depth} transformer blocks; the peer is the goal"
    yield lower(f"grouping blocks, share of the encoder's time, {size}", share, MOST_OF_ENCODER, "%", goal)


def _tokens_and_groups(config: VideoEncoderConfig, clips: int) -> tuple[Tensor, Tensor, GroupingBlock]:
    count = config.grid[0] * config.grid[1] * config.grid[2]
    torch.manual_seed(0)
    tokens, groups = (torch.randn(clips, n, config.width, requires_grad=True) for n in (count, config.groups))
    c = config
    return tokens, groups, GroupingBlock(c.grouping, c.width, c.groups, c.heads, c.activation, c.norm_eps)
