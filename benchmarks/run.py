"""Speed of our parts against a peer in the same process: `make bench`.

Each row is the median of several alternating repetitions, so that a busy machine hurts both alike.  A ratio above 1
means that ours is better.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import roi
import torch
import torch.nn.functional as F
from gtad import peaks, training_steps
from torch import Tensor

from svilm.data.decode import index_video, read_frames
from svilm.losses import grounding_similarity
from svilm.models.video import VideoEncoder, VideoEncoderConfig


@dataclass(frozen=True)
class Row:
    """One comparison, in ``unit``."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object], repetitions: int) -> Row:
    """Time both in turn after one warm-up each."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repetitions + 1):
        for who, work in (("ours", ours), ("peer", peer)):
            begun = time.perf_counter()
            work()
            times[who].append(time.perf_counter() - begun)
    mine, theirs = (statistics.median(times[who][1:]) for who in ("ours", "peer"))
    return Row(name, mine, theirs, "s", theirs / mine)


def grounding(repetitions: int) -> Row:
    """Eq. 3 in Gram form against the weighted sums written out, forward and backward: 128 x 128, K 2, M 32, D 256."""
    torch.manual_seed(0)
    groups, nouns = torch.randn(128, 32, 256, requires_grad=True), torch.randn(128, 2, 256, requires_grad=True)
    mask = torch.ones(128, 2, dtype=torch.bool)

    def direct() -> Tensor:
        g, n = F.normalize(groups, dim=-1), F.normalize(nouns, dim=-1)
        weight = (torch.einsum("vmd,ckd->vckm", g, n) / 0.1).softmax(dim=-1)
        regions = F.normalize(torch.einsum("vckm,vmd->vckd", weight, g), dim=-1)
        return torch.einsum("vckd,ckd->vck", regions, n).mean(dim=-1)

    torch.testing.assert_close(direct(), grounding_similarity(groups, nouns, mask, 0.1), atol=1e-5, rtol=0)
    return compare(
        "grounding similarity against the direct form",
        lambda: grounding_similarity(groups, nouns, mask, 0.1).sum().backward(),
        lambda: direct().sum().backward(),
        repetitions,
    )


def encoder(repetitions: int) -> Row:
    """Our encoder with its grouping blocks against ViViT of transformers (SDPA), forward and backward."""
    from transformers import VivitConfig, VivitModel

    size = {"width": 192, "depth": 6, "heads": 3}
    ours = VideoEncoder(VideoEncoderConfig(**size, grid=(4, 7, 7), groups=16, group_after=(3, 6)))
    theirs = VivitModel(
        VivitConfig(
            image_size=112, num_frames=8, tubelet_size=[2, 16, 16], hidden_size=192, num_hidden_layers=6,
            num_attention_heads=3, intermediate_size=768,
        )
    ).train()  # fmt: skip
    video = torch.randint(0, 256, (8, 8, 112, 112, 3), dtype=torch.uint8)
    pixels = video.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    return compare(
        "video encoder with 2 grouping blocks against ViViT without",
        lambda: ours(video)[1].sum().backward(),
        lambda: theirs(pixels).last_hidden_state.sum().backward(),
        repetitions,
    )


def localization(repetitions: int) -> list[Row]:
    """A training step of G-TAD for ActivityNet on 2 videos, against building the aligned features of all anchors."""
    ours, peer = training_steps()
    torch.testing.assert_close(ours(), peer(), atol=1e-5, rtol=0)
    name = "G-TAD training step, fused against materialised"
    rows = [compare(name, ours, peer, min(repetitions, 2))]  # the peer takes many seconds
    memory = peaks()
    if memory is not None:
        rows.append(Row(f"{name}: memory", *memory, unit="MB", ratio=memory[1] / memory[0]))
    return rows


def decoding(repetitions: int, folder: Path) -> Row:
    """32 frames over a clip of 10 s (480x270, a key frame every 48), short side 224, against plain sequential PyAV."""
    path = folder / "clip.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"g": "48", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        scene = rng.integers(0, 256, (270, 960, 3), dtype=np.uint8)
        for number in range(300):
            picture = np.ascontiguousarray(scene[:, number : number + 480] // 2 + 60)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    wanted = set(np.linspace(0, 299, 32).astype(int).tolist())

    def plain() -> list[np.ndarray]:
        with av.open(str(path)) as source:
            return [
                frame.reformat(398, 224, format="rgb24").to_ndarray()
                for number, frame in enumerate(source.decode(video=0))
                if number in wanted
            ]

    return compare(
        "32 frames of a 10 s clip against sequential PyAV",
        lambda: read_frames(index_video(path), sorted(wanted), resize=224),
        plain,
        repetitions,
    )


def main() -> None:
    """Run all rows and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            grounding(options.repetitions),
            encoder(options.repetitions),
            *localization(options.repetitions),
            compare(*roi.contest(), options.repetitions),
            decoding(options.repetitions, Path(folder)),
        ]
    for row in rows:
        print(f"{row.name:62} ours {row.ours:8.3f} {row.unit}  peer {row.peer:8.3f} {row.unit}  ratio {row.ratio:5.2f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
