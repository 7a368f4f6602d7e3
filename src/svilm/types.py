"""The records that cross the walls between rooms, and the names of tensor shapes.

Every record is frozen and checked at birth.  Axis names used in the shapes:

    batch    clips of one (micro-)batch              frames  T, decoded frames of a clip
    steps    N_t, temporal positions of the encoder  places  S, spatial positions of one step (h x w)
    groups   M, group tokens                         nouns   K, noun phrases per caption
    texts    distinct texts of a batch               length  text tokens, padding included
    width    encoder width D                         common  width of the common space
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from svilm.entries import Entry, LabelledBox, Segment

__all__ = [
    "Batch", "Entry", "Frames", "LabelledBox", "Paste", "Scores", "Segment", "Terms", "TextFeatures", "VideoFeatures",
]  # fmt: skip

Frames = UInt8[Tensor, "batch frames high wide 3"]
"""RGB pixels, 0 to 255, channels last, as decoded.  The encoder owns the normalisation."""


@dataclass(frozen=True)
class Paste:
    """What cut-and-paste did to a batch (section 3.2 of the paper).

    Clip i shows its own frames where ``mask[i]`` is true and those of clip ``partner[i]`` elsewhere.
    """

    mask: Bool[Tensor, "batch steps"]
    partner: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        if self.mask.shape[0] != self.partner.shape[0]:
            raise ValueError(f"mask has {self.mask.shape[0]} clips, partner {self.partner.shape[0]}")

    @property
    def beta(self) -> Float[Tensor, " batch"]:
        """Share of the foreground in each clip, (e - s) / N_t of Eq. 5."""
        return self.mask.float().mean(dim=1)


@dataclass(frozen=True)
class Batch:
    """Clips with their captions and noun prompts, ready for the encoders.

    Distinct texts are tokenised once: ``text_ids[caption_index[i]]`` is the caption of clip i and
    ``text_ids[noun_index[i, k]]`` the prompt of its k-th noun, real where ``noun_mask[i, k]``.
    """

    entries: tuple[Entry, ...]
    captions: tuple[str, ...]
    """The caption drawn for each clip, one of its entry's."""
    nouns: tuple[tuple[str, ...], ...]
    video: UInt8[Tensor, "batch frames high wide 3"]
    seconds: Float[Tensor, "batch frames"]
    view: Float[Tensor, "batch 4"]
    """The part of each upright picture that is seen: x0, y0, x1, y1 in [0, 1]; mirrored clips have x0 > x1."""
    text_ids: Int[Tensor, "texts length"]
    text_mask: Bool[Tensor, "texts length"]
    caption_index: Int[Tensor, " batch"]
    noun_index: Int[Tensor, "batch nouns"]
    noun_mask: Bool[Tensor, "batch nouns"]
    paste: Paste | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Clips that could not be read and were replaced, by reason."""

    def __post_init__(self) -> None:
        sizes = {
            "entries": len(self.entries),
            "captions": len(self.captions),
            "nouns": len(self.nouns),
            "video": self.video.shape[0],
            "seconds": self.seconds.shape[0],
            "view": self.view.shape[0],
            "caption_index": self.caption_index.shape[0],
            "noun_index": self.noun_index.shape[0],
        }
        if len(set(sizes.values())) != 1:
            raise ValueError(f"a batch needs one size throughout, got {sizes}")

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the clips."""
        return tuple(entry.id for entry in self.entries)

    def __repr__(self) -> str:
        video = "x".join(str(n) for n in self.video.shape)
        pasted = "" if self.paste is None else ", cut and pasted"
        return f"Batch({len(self)} clips, video {video}, {self.text_ids.shape[0]} texts{pasted})"

    def to(self, device: torch.device) -> "Batch":
        """The same batch with every tensor on ``device``."""

        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where a GPU copies while it computes; the DataLoader calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed."""

        def changed(value: object) -> object:
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, Paste):
                return Paste(change(value.mask), change(value.partner))
            return value

        return Batch(**{f.name: changed(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]

    def part(self, start: int, stop: int) -> "Batch":
        """Clips start <= i < stop with just the texts they use, for gradient accumulation.

        ``paste`` is left out: its partners reach across parts, and the pixels are blended already.
        """
        rows = slice(start, stop)
        caption, noun = self.caption_index[rows], self.noun_index[rows]
        used, new = torch.unique(torch.cat([caption, noun.flatten()]), return_inverse=True)
        length = int(self.text_mask[used].sum(dim=1).max())
        return Batch(
            entries=self.entries[rows],
            captions=self.captions[rows],
            nouns=self.nouns[rows],
            video=self.video[rows],
            seconds=self.seconds[rows],
            view=self.view[rows],
            text_ids=self.text_ids[used, :length],
            text_mask=self.text_mask[used, :length],
            caption_index=new[: len(caption)],
            noun_index=new[len(caption) :].view_as(noun),
            noun_mask=self.noun_mask[rows],
        )


@dataclass(frozen=True)
class VideoFeatures:
    """What the video encoder makes of a batch of clips."""

    tokens: Float[Tensor, "batch steps places width"]
    """Video tokens of the last block, normalised by the final LayerNorm (z^v in section 3.2)."""
    groups: Float[Tensor, "batch groups width"]
    """Group tokens after the last grouping block, LayerNorm applied."""
    assignment: Float[Tensor, "batch groups steps places"]
    """Share of each video token that goes to each group in the last grouping block (softmax over groups,
    no noise, no gradient)."""
    embedding: Float[Tensor, "batch common"]
    """Clip vector f^v: projected mean of the group tokens, unit length."""
    group_embedding: Float[Tensor, "batch groups common"]
    """Each group token in the common space, unit length (g^m of Eq. 3)."""
    region_embedding: Float[Tensor, "batch steps regions common"] | None = None
    """Each region token in the common space, unit length, where the model has such; nouns meet these instead."""


@dataclass(frozen=True)
class TextFeatures:
    """What the text encoder makes of a list of texts."""

    hidden: Float[Tensor, "texts width"]
    """The [CLS] state."""
    embedding: Float[Tensor, "texts common"]
    """The [CLS] state in the common space, unit length (f^c, and n^k for a noun prompt)."""


@dataclass(frozen=True)
class Terms:
    """Named scalars of one training step: ``losses`` add up to ``total``, ``watched`` is only logged."""

    total: Float[Tensor, ""]
    losses: Mapping[str, Float[Tensor, ""]]
    watched: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Result of an evaluation: flat metric names to numbers, with how many items were really scored.

    ``metrics`` holds names such as ``retrieval/text_to_video/R@10`` (percent).  ``scored`` of
    ``official`` items entered the numbers; ``protocol`` says in words how they were computed.
    """

    metrics: Mapping[str, float]
    scored: int
    official: int
    protocol: str

    def __post_init__(self) -> None:
        if not 0 <= self.scored <= self.official:
            raise ValueError(f"scored {self.scored} of {self.official} official items")
