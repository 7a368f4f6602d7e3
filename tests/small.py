"""A very small model and batches of noise, for tests of the parts that need both."""

import torch

from svilm.models.dual import DualEncoder, DualEncoderConfig
from svilm.models.grouping import GroupingConfig
from svilm.models.text import TextEncoderConfig
from svilm.models.video import VideoEncoderConfig
from svilm.types import Batch, Entry, Paste

CONFIG = DualEncoderConfig(
    video=VideoEncoderConfig(
        width=16, depth=2, heads=2, tubelet=(2, 8, 8), grid=(4, 2, 2), groups=4, group_after=(1, 2),
        grouping=GroupingConfig(zero_init=False),
    ),
    text=TextEncoderConfig(vocabulary=50, width=16, depth=1, heads=2, positions=16, dropout=0.0),
    common=8,
)  # fmt: skip


def model(seed: int = 0, config: DualEncoderConfig = CONFIG) -> DualEncoder:
    torch.manual_seed(seed)
    return DualEncoder(config)


def batch(clips: int = 8, seed: int = 0, paste: bool = True) -> Batch:
    """Clips of 8 frames of 16x16 with random captions and two nouns, one of the captions without a noun."""
    g = torch.Generator().manual_seed(seed)
    texts = 2 * clips
    lengths = torch.randint(3, 9, (texts,), generator=g)
    mask = torch.arange(8)[None] < lengths[:, None]
    noun_mask = torch.ones(clips, 2, dtype=torch.bool)
    noun_mask[0, 1] = False
    foreground = torch.zeros(clips, 4, dtype=torch.bool)
    for clip in range(clips):
        start = int(torch.randint(0, 2, (1,), generator=g))
        foreground[clip, start : start + 2 + clip % 2] = True
    return Batch(
        entries=tuple(Entry(f"clip{i}", f"clip{i}.mp4", (f"caption {i}",), ((f"noun {i}",),)) for i in range(clips)),
        captions=tuple(f"caption {i}" for i in range(clips)),
        nouns=tuple((f"noun {i}",) for i in range(clips)),
        video=torch.randint(0, 256, (clips, 8, 16, 16, 3), generator=g, dtype=torch.uint8),
        seconds=torch.arange(8.0).expand(clips, 8),
        view=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(clips, 4),
        text_ids=torch.randint(1, 50, (texts, 8), generator=g) * mask,
        text_mask=mask,
        caption_index=torch.arange(clips),
        noun_index=torch.randint(clips, texts, (clips, 2), generator=g),
        noun_mask=noun_mask,
        paste=Paste(foreground, torch.arange(clips).roll(1)) if paste else None,
    )
