"""Parts of other projects, imported in place from clones of their repositories.

Of what such a file imports only torch and einops need be here: a few helpers of timm are stood in for by ours, and the
project's own registry by nothing at all.
"""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import nn


class Absent(Exception):
    """Why a part of another project cannot run here."""


def space_time_transformer(peers: Path | None, frames: int, side: int, depth: int, width: int, heads: int) -> nn.Module:
    """The video encoder of Frozen in Time (Bain et al., 2021): (B, T, 3, H, W) -> [CLS] states (B, D)."""
    module = _load(peers, "frozen-in-time", "model/video_transformer.py")
    rearrange = module.rearrange
    # It scales what einops returns in place, which torch has come to refuse where that is a view: with a single clip.
    module.rearrange = lambda *words, **sizes: rearrange(*words, **sizes).contiguous()
    with redirect_stdout(StringIO()):  # it announces itself
        encoder: nn.Module = module.SpaceTimeTransformer(
            num_frames=frames, img_size=side, depth=depth, embed_dim=width, num_heads=heads, num_classes=0
        )
    return encoder


def grouping_block(peers: Path | None, width: int, groups: int, heads: int) -> nn.Module:
    """The grouping block of GroupViT (Xu et al., 2022): tokens (B, N, D) and groups (B, M, D) -> groups, _."""
    module = _load(peers, "GroupViT", "models/group_vit.py")
    block: nn.Module = module.GroupingBlock(
        dim=width, out_dim=width, num_heads=heads, num_group_token=groups, num_output_group=groups,
        norm_layer=nn.LayerNorm, hard=True, gumbel=True,
    )  # fmt: skip
    return block


def _load(peers: Path | None, project: str, file: str) -> Any:
    """One file of a project as a module.  Raises Absent when the clone or einops is missing."""
    if peers is None:
        raise Absent(f"no clone of {project}; give --peers DIR")
    path = peers / project / file
    if not path.is_file():
        raise Absent(f"no {path}; clone {project} into {peers}")
    if importlib.util.find_spec("einops") is None:
        raise Absent(f"{project} imports einops, which is not installed")
    name = f"svilm_peer.{project.replace('-', '_').lower()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _standing_in(_stand_ins()):
        spec.loader.exec_module(module)
    return module


def _stand_ins() -> dict[str, dict[str, Any]]:
    def pair(value: Any) -> tuple[Any, Any]:
        return value if isinstance(value, tuple) else (value, value)

    helpers = {"DropPath": nn.Identity, "to_2tuple": pair, "trunc_normal_": nn.init.trunc_normal_}
    registry = SimpleNamespace(register_module=lambda *_, **__: lambda kind: kind)
    return {
        "timm": {},
        "timm.models": {},
        "timm.models.layers": helpers,
        "svilm_peer": {"__path__": []},
        "svilm_peer.builder": {"MODELS": registry},
        "svilm_peer.misc": {"Result": object, "interpolate_pos_encoding": None},
    }


@contextmanager
def _standing_in(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """While entered, imports find ``modules``; what was there before comes back afterwards."""
    before = {name: sys.modules.get(name) for name in modules}
    for name, content in modules.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
