"""From scores of a temporal detector to segments in seconds: candidates, soft-NMS, labels; and their recall.

Proposals are rows (start_seconds, end_seconds, score), the best first.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import PositiveFloat, PositiveInt

from svilm.config import Config

Proposals = Float[np.ndarray, "_ 3"]
Segments = Float[np.ndarray, "_ 2"]
"""Rows (start, end)."""

CANDIDATE_SHARE = 0.5
"""A step whose score is above this share of the largest is a candidate, as is every local maximum."""
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps over which recall is averaged, as in the ActivityNet challenge."""


class ProposalConfig(Config):
    """How the scores of G-TAD become proposals; the defaults are those of the published code for ActivityNet."""

    candidates: bool = True
    """Keep only anchors between a candidate start and a candidate end."""
    end_step: Literal["behind", "last"] = "behind"
    """Which step must be a candidate end: the one behind the last step of an anchor (original), or the last
    (OpenTAD)."""
    reach_end: bool = False
    """Keep anchors that end where the video ends.  The published code drops them: a segment up to the very end can
    then be found at best one step short."""
    sigma: PositiveFloat = 0.8
    """Soft-NMS multiplies a score by exp(-overlap^2 / sigma)."""
    keep: PositiveInt = 100
    """Largest number of proposals of a video."""
    longest_seconds: PositiveFloat | None = None
    """Drop proposals as long as this or longer; null keeps all."""

    @classmethod
    def activitynet(cls) -> "ProposalConfig":
        """As the published code does for ActivityNet, which the paper used."""
        return cls()

    @classmethod
    def thumos(cls) -> "ProposalConfig":
        """As the published code does for THUMOS14, at 30 frames per second: no segment of 300 frames or more."""
        return cls(candidates=False, sigma=0.46, keep=200, longest_seconds=10.0)

    @classmethod
    def opentad(cls) -> "ProposalConfig":
        """As OpenTAD does for ActivityNet, without its voting between segments."""
        return cls(end_step="last", reach_end=True)


def proposals(
    start: Float[np.ndarray, " steps"],
    end: Float[np.ndarray, " steps"],
    maps: Float[np.ndarray, "2 longest steps"],
    duration_seconds: float,
    config: ProposalConfig,
    until_seconds: float = np.inf,
) -> Proposals:
    """The proposals of a video of ``duration_seconds``, the length that the features cover.

    A window may reach behind the end of its video, ``until_seconds``: proposals end there, and none begins later.

    ``start``, ``end`` and ``maps`` are probabilities.  Anchor (d, s) of ``maps`` is the segment [s, s + d + 1) of
    ``steps`` equal steps; its score is the product of both channels.  For a window of a longer video, add where it
    begins to both columns of times, join the windows, and call `soft_nms` once more.
    Raises ValueError for a duration that is not positive, or scores outside [0, 1].
    """
    if not 0 < duration_seconds < np.inf:
        raise ValueError(f"duration_seconds = {duration_seconds} must be a positive number")
    for name, values in (("start", start), ("end", end), ("maps", maps)):
        if not ((values >= 0) & (values <= 1)).all():  # NaN fails as well
            raise ValueError(f"{name} holds values outside [0, 1]; pass probabilities (GTADOutput.{name})")
    steps = len(start)
    last_end = steps if config.reach_end else steps - 1
    length_index, first = np.nonzero(np.arange(maps.shape[1])[:, None] + np.arange(steps) + 1 <= last_end)
    behind = first + length_index + 1
    if config.candidates:
        starts, ends = candidates(start), candidates(end[::-1])[::-1]
        # Behind the last step there is no score: the end of the video is a candidate by itself.
        keep = starts[first] & np.append(ends, True)[behind - (config.end_step == "last")]
        length_index, first, behind = length_index[keep], first[keep], behind[keep]
    score = maps.astype(np.float64).prod(axis=0)[length_index, first]
    times = np.stack([first, behind], axis=1) * (duration_seconds / steps)
    if config.longest_seconds is not None:
        short = times[:, 1] - times[:, 0] < config.longest_seconds
        times, score = times[short], score[short]
    inside = times[:, 0] < until_seconds  # before the others are chosen from: what lies outside would take their place
    times, score = times[inside].clip(max=until_seconds), score[inside]
    return soft_nms(np.column_stack([times, score]), config.sigma, config.keep)


def candidates(scores: Float[np.ndarray, " steps"]) -> Bool[np.ndarray, " steps"]:
    """Steps where a segment may start: the first, local maxima, and scores above half of the largest.

    Reverse the scores, and the result, for ends.
    """
    found = scores > CANDIDATE_SHARE * scores.max()
    inner = scores[1:-1]
    found[1:-1] |= (inner > scores[:-2]) & (inner > scores[2:])
    found[0] = True
    return found


def overlaps(
    ours: Float[np.ndarray, "ours 2"], theirs: Float[np.ndarray, "theirs 2"]
) -> Float[np.ndarray, "ours theirs"]:
    """Intersection over union of segments that end after they start."""
    shared = np.minimum(ours[:, None, 1], theirs[None, :, 1]) - np.maximum(ours[:, None, 0], theirs[None, :, 0])
    shared = shared.clip(min=0.0)
    length, other = ours[:, 1] - ours[:, 0], theirs[:, 1] - theirs[:, 0]
    return shared / (length[:, None] + other[None, :] - shared)


def soft_nms(found: Proposals, sigma: float, keep: int) -> Proposals:
    """Gaussian soft-NMS: take the best, multiply the scores of the others by exp(-overlap^2 / sigma), and again.

    At most ``keep`` come back, with the scores at which they were taken.  Of equal scores the first in ``found`` is
    taken.  What has no score left is not a proposal.
    """
    rest = found.astype(np.float64)
    taken: list[np.ndarray] = []
    while len(rest) and len(taken) < keep:
        best = int(rest[:, 2].argmax())
        if not rest[best, 2] > 0:
            break
        taken.append(rest[best])
        rest = np.delete(rest, best, axis=0)
        rest[:, 2] *= np.exp(-(overlaps(rest[:, :2], taken[-1][None, :2])[:, 0] ** 2) / sigma)
    return np.array(taken).reshape(-1, 3)


def label(
    found: Proposals, class_scores: Float[np.ndarray, " classes"], top: int = 2
) -> tuple[Proposals, Int[np.ndarray, " _"]]:
    """Each proposal once for each of the ``top`` best classes of its video, with the product of both scores.

    ``class_scores`` are probabilities of the whole video.  Comes back as proposals, the best first, with the number of
    the class of each.  Raises ValueError for scores that are negative or no numbers.
    """
    if not (np.isfinite(class_scores) & (class_scores >= 0)).all():
        raise ValueError("class_scores must be probabilities: finite and not negative; apply a softmax to logits")
    best = np.argsort(-class_scores, kind="stable")[:top]
    labelled = np.repeat(found.astype(np.float64), len(best), axis=0)
    classes = np.tile(best, len(found))
    labelled[:, 2] *= class_scores[classes]
    order = np.argsort(-labelled[:, 2], kind="stable")
    return labelled[order], classes[order]


def average_recall(
    found: Sequence[Proposals], truth: Sequence[Segments], numbers: Sequence[int] = (1, 5, 10, 100)
) -> dict[int, float]:
    """AR@AN: share of true segments that one of the first n proposals of their video covers, in percent.

    Averaged over overlaps of 0.5 to 0.95 (`THRESHOLDS`), for each n.  A diagnostic that needs no classes.  The
    official script chooses n in proportion to the proposals of each video, here n is the same for all.
    Raises ValueError when there is no true segment, or the number of videos differs.
    """
    if len(found) != len(truth):
        raise ValueError(f"proposals of {len(found)} videos, true segments of {len(truth)}")
    if not sum(len(each) for each in truth):
        raise ValueError("no video has a true segment, so there is nothing to recall; look at the subset chosen")
    recall = {}
    for number in numbers:
        best = [
            overlaps(true, ours[:number, :2]).max(axis=1, initial=0.0) for ours, true in zip(found, truth, strict=True)
        ]
        recall[number] = 100.0 * float((np.concatenate(best)[:, None] >= THRESHOLDS).mean())
    return recall
