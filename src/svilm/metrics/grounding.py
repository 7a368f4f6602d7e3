"""How well heat maps show where a thing is: pointing, overlap and energy against true boxes (section C, Figure 4).

A heat map has a value for each pixel of each frame of a clip (T, H, W); the box of a thing is known for each frame
(T, 4), xyxy in [0, 1], NaN where it is not seen.  A pixel lies in a box when its centre does.  A box so small that
no centre lies in it owns the pixel around its own centre; one that lies wholly outside the picture, or has no area,
is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Heat = Float[np.ndarray, "frames high wide"]
Boxes = Float[np.ndarray, "frames 4"]
Masks = Bool[np.ndarray, "frames high wide"]


@dataclass(frozen=True)
class Grounded:
    """What one heat map is worth for one thing; all numbers lie in [0, 1], larger is better but for two of them.

    Where several pixels share the highest value, pointing is the expected value over them: a flat map points by
    chance, wherever its maximum would be looked for first.
    """

    pointing: float
    """Chance that the hottest pixel of a frame lies in the box, mean over the frames in which the thing is seen."""
    pointing_in_clip: float
    """Chance that the hottest pixel of the whole clip lies in the box of its frame: place and time."""
    iou: float
    """Intersection over union of the thresholded map and the box, mean over the frames in which the thing is seen."""
    energy: float
    """Share of the clip's heat that lies in the boxes; heat in a frame without the thing lies outside."""
    area: float
    """Share of the clip's pixels that lie in the boxes: the energy of heat that is spread evenly."""
    pointing_with_distractor: float | None
    """Pointing over the frames in which another thing is seen too; None without such frames."""
    on_distractor: float | None
    """Chance that the hottest pixel of those frames lies on another thing, and not on this one."""


def grounded(
    heat: Heat, box: Boxes, others: Float[np.ndarray, "others frames 4"], threshold: float = 0.5
) -> Grounded | None:
    """Measure the heat map of a thing against its ``box`` and those of the ``others`` in the clip.

    The thresholded map is all that reaches ``threshold`` of the way from the lowest heat of the clip to the highest.
    Where things overlap a pixel belongs to the named one.  None when the thing is not seen in any frame.
    Raises ValueError for heat that is negative or not finite.
    """
    if not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError("a heat map must be finite and not negative; shift it by its lowest value")
    high, wide = heat.shape[1:]
    own = box_masks(box, high, wide)
    seen = own.any(axis=(1, 2))
    if not seen.any():
        return None
    rivals = [box_masks(other, high, wide) for other in others]
    another = np.any([np.zeros_like(own), *rivals], axis=0)
    contested = seen & another.any(axis=(1, 2))
    hottest = heat == heat.max(axis=(1, 2), keepdims=True)
    hits, misses = _share(hottest, own), _share(hottest, another & ~own)
    everywhere = heat == heat.max()
    total = float(heat.sum(dtype=np.float64))
    lowest, span = heat.min(), heat.max() - heat.min()
    warm = heat >= lowest + threshold * span
    overlap = (warm & own).sum(axis=(1, 2)) / np.maximum((warm | own).sum(axis=(1, 2)), 1)
    area = float(own.mean())
    return Grounded(
        pointing=float(hits[seen].mean()),
        pointing_in_clip=float(own[everywhere].mean()),
        iou=float(overlap[seen].mean()),
        energy=float(heat[own].sum(dtype=np.float64)) / total if total > 0 else area,
        area=area,
        pointing_with_distractor=float(hits[contested].mean()) if contested.any() else None,
        on_distractor=float(misses[contested].mean()) if contested.any() else None,
    )


def box_masks(box: Boxes, high: int, wide: int) -> Masks:
    """Which pixels lie in the box of each frame, (T, high, wide); none where the thing is not seen."""
    left, top, right, bottom = np.nan_to_num(np.clip(box, 0.0, 1.0), nan=0.0).T
    seen = (left < right) & (top < bottom)
    inside = _inside(top, bottom, high)[:, :, None] & _inside(left, right, wide)[:, None, :]
    mask: np.ndarray = inside & seen[:, None, None]
    return mask


def mean_grounded(found: Sequence[Grounded]) -> dict[str, float]:
    """Mean of each number over things, in percent; each thing counts once however long it is seen.

    The two numbers about distractors are means over the things that have one, and absent when none has.
    Raises ValueError when there is nothing to average.
    """
    if not found:
        raise ValueError("no thing was seen, so there is nothing to average")
    means = {}
    for name in Grounded.__dataclass_fields__:
        values = [value for value in (getattr(each, name) for each in found) if value is not None]
        if values:
            means[name] = 100.0 * float(np.mean(values))
    return means


def _share(hottest: Masks, where: Masks) -> Float[np.ndarray, " frames"]:
    """Of the hottest pixels of each frame, the part that lies in a mask."""
    share: np.ndarray = (hottest & where).sum(axis=(1, 2)) / hottest.sum(axis=(1, 2))
    return share


def _inside(
    low: Float[np.ndarray, " frames"], high: Float[np.ndarray, " frames"], size: int
) -> Bool[np.ndarray, "frames size"]:
    """Which of ``size`` pixels in a row have their centre in [low, high); the one at the middle when none has."""
    centres = (np.arange(size) + 0.5) / size
    inside: np.ndarray = (low[:, None] <= centres) & (centres < high[:, None])
    middle = np.minimum(((low + high) / 2 * size).astype(int), size - 1)
    alone = ~inside.any(axis=1)
    inside[alone, middle[alone]] = True
    return inside
