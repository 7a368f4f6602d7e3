"""Where scenes change, and which moments belong together: boundaries and assignments of the steps of a clip."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_MOST_CHOICES = 5000


def boundaries(similarity: Float[np.ndarray, "steps steps"], count: int) -> Int[np.ndarray, " count"]:
    """The ``count`` least similar pairs of neighbouring steps, ascending; k lies between steps k and k + 1.

    Between equal similarities the earlier one is taken.  Raises ValueError for more boundaries than there are pairs.
    """
    neighbours = similarity.diagonal(1)
    if count > len(neighbours):
        raise ValueError(f"{count} boundaries asked of {len(neighbours) + 1} steps")
    return np.sort(np.argsort(neighbours, kind="stable")[:count])


def boundary_f1(
    found: Sequence[float] | Float[np.ndarray, " found"],
    true: Sequence[float] | Float[np.ndarray, " true"],
    tolerance: float,
) -> float:
    """F1 of found boundaries: one is right when a true one, which no other has, is at most ``tolerance`` away.

    Both are times in one unit, ascending.  As many as possible are matched.  1 where there is neither.
    """
    if not len(found) and not len(true):
        return 1.0
    hits, used = 0, 0
    for time in found:  # in order: the earliest true one that is near enough leaves the most to the others
        while used < len(true) and true[used] < time - tolerance - 1e-9:
            used += 1
        if used < len(true) and true[used] <= time + tolerance + 1e-9:
            hits, used = hits + 1, used + 1
    return 2 * hits / (len(found) + len(true))


def chance_f1(places: Float[np.ndarray, " places"], true: Sequence[float], tolerance: float) -> float:
    """Expected F1 of as many different ``places`` as there are true boundaries (or all, where they are fewer), each
    choice as likely.

    Where there are more than 5,000 choices, 5,000 seeded random ones stand for all.
    """
    count = min(len(true), len(places))
    choices: Iterable[Sequence[float]]
    if comb(len(places), count) <= _MOST_CHOICES:
        choices = combinations(places.tolist(), count)
    else:
        rng = np.random.default_rng(0)
        choices = (np.sort(rng.choice(places, count, replace=False)).tolist() for _ in range(_MOST_CHOICES))
    return float(np.mean([boundary_f1(choice, true, tolerance) for choice in choices]))


def auc(higher: Float[np.ndarray, " higher"], lower: Float[np.ndarray, " lower"]) -> float:
    """How often a value of the first kind is above one of the second, over all pairs of them: 0 to 1, 0.5 is chance.

    A tie counts half.  This is the area under the ROC curve: how well one threshold could tell the two kinds.  Raises
    ValueError when there is none of a kind.
    """
    if not len(higher) or not len(lower):
        raise ValueError(f"{len(higher)} values of one kind and {len(lower)} of the other; both are needed")
    below, upto = (np.searchsorted(np.sort(lower), higher, side=side) for side in ("left", "right"))
    return float(np.mean((below + upto) / (2 * len(lower))))


class Assignment(NamedTuple):
    """Of the foreground and of the background steps of a clip, how many are nearer to their own part."""

    foreground: int
    foreground_right: float
    background: int
    background_right: float


def assignment(steps: Float[np.ndarray, "steps width"], mask: Bool[np.ndarray, " steps"]) -> Assignment:
    """Each step of a cut-and-paste clip against the centres of foreground and background: Eq. 1, left one out.

    A step is right when its cosine with the mean of the other steps of its own part is larger than with the mean of
    the other part; a tie is half right.  In the loss a step lies in its own centre, which helps features that know
    nothing; here it does not, and a step that is alone in its part, without a centre, is left out.
    """
    wide = steps.astype(np.float64)
    right = {True: 0.0, False: 0.0}
    count = {True: 0, False: 0}
    for number, own in enumerate(mask.tolist()):
        mine = mask == own
        mine[number] = False
        if not mine.any() or not (mask != own).any():
            continue
        near, far = (_cosine(wide[number], wide[part].mean(axis=0)) for part in (mine, mask != own))
        count[own] += 1
        right[own] += 1.0 if near > far else 0.5 if near == far else 0.0
    return Assignment(count[True], right[True], count[False], right[False])


def balanced_accuracy(found: Sequence[Assignment]) -> float | None:
    """Mean of the right shares of all foreground steps and of all background steps, in percent; chance is 50.

    None when there are no steps of one kind to judge.
    """
    foreground, background = (sum(each[k] for each in found) for k in (0, 2))
    if not foreground or not background:
        return None
    rights = sum(each.foreground_right for each in found), sum(each.background_right for each in found)
    return 50.0 * (rights[0] / foreground + rights[1] / background)


def _cosine(one: Float[np.ndarray, " width"], other: Float[np.ndarray, " width"]) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length > 0 else 0.0
