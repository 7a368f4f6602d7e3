"""What the evaluators of detections share: who is compared with whom, who gets the match, average precision."""

import numpy as np
from jaxtyping import Int

TIE_RULE = "of equal scores the later entry first"
"""The public evaluators sort by an unstable argsort read backwards, so a file with ties has no single official
number.  This is what they give wherever their sort happens to be stable."""


def pairs_within(
    predicted: Int[np.ndarray, " predictions"], true: Int[np.ndarray, " truths"]
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Every pair of a prediction and a truth of the same group: index of the prediction, index of the truth.

    ``predicted`` and ``true`` number the groups, for instance a class in a video.  Pairs are in the order of the
    predictions, and of the truths within a prediction.
    """
    order = np.argsort(true, kind="stable")
    first = np.searchsorted(true[order], predicted, side="left")
    count = np.searchsorted(true[order], predicted, side="right") - first
    prediction = np.repeat(np.arange(len(predicted)), count)
    place = np.arange(len(prediction)) - np.repeat(np.cumsum(count) - count, count)
    return prediction, order[np.repeat(first, count) + place]


def assign(
    prediction: Int[np.ndarray, " pairs"], truth: Int[np.ndarray, " pairs"], num_truths: int
) -> Int[np.ndarray, " hits"]:
    """Predictions that get a truth when each in turn takes the first free one of its list; ascending.

    Predictions are numbered by their turn; the pairs of one stand together, the truth it likes best first.  Instead
    of turn by turn all ask at once: a truth keeps the earliest that asks for it and the others go on to their next.
    Because all truths prefer in the same order, this ends where taking turns does, after a few rounds.
    """
    asking, at = np.unique(prediction, return_index=True)
    stop = np.append(at[1:], len(prediction))
    while True:
        wanted = truth[at]
        earliest = np.full(num_truths, np.iinfo(np.int64).max)
        np.minimum.at(earliest, wanted, asking)
        refused = earliest[wanted] != asking
        if not refused.any():
            return asking
        at = at + refused
        left = at < stop
        asking, at, stop = asking[left], at[left], stop[left]


def average_precision(ranks: Int[np.ndarray, " hits"], num_truths: int) -> float:
    """Area under precision over recall, 0 to 1, of a ranking whose hits stand at ``ranks`` (ascending, from 1).

    Precision is replaced by the highest at the same or a higher recall, and every hit counts (VOC 2010 and later).
    """
    if len(ranks) == 0:
        return 0.0
    precision = np.arange(1, len(ranks) + 1) / ranks
    return float(np.maximum.accumulate(precision[::-1]).sum() / num_truths)
