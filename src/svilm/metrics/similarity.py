"""How alike the moments of a clip are, within a scene and across a scene change (Figures 2 and 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class SceneSimilarity(NamedTuple):
    """Mean cosine of two moments of one scene, and of two moments of different scenes."""

    within: float
    across: float

    @property
    def gap(self) -> float:
        """How much lower the similarity is across a scene change; temporal grouping should widen it."""
        return self.within - self.across


def step_similarity(tokens: Float[np.ndarray, "steps width"]) -> Float[np.ndarray, "steps steps"]:
    """Cosine similarity of every two steps of a clip, the matrices of Figures 2 and 5, in float64.

    ``tokens`` are the step means of the video tokens.  A zero vector has similarity 0 with everything.
    """
    wide = tokens.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    cosine: np.ndarray = unit @ unit.T
    return cosine.clip(-1.0, 1.0)


def scene_labels(
    times: Float[np.ndarray, " steps"] | Int[np.ndarray, " steps"], changes: Sequence[float] | Sequence[int]
) -> Int[np.ndarray, " steps"]:
    """Number of the scene, from 0, that each time lies in; a change belongs to the scene that it begins.

    ``times`` and ``changes`` are in one unit: seconds, or step numbers.
    """
    return np.searchsorted(np.sort(np.asarray(changes, dtype=np.float64)), times, side="right")


def scene_pairs(
    similarity: Float[np.ndarray, "steps steps"],
    scenes: Int[np.ndarray, " steps"] | Bool[np.ndarray, " steps"],
) -> tuple[Float[np.ndarray, " within"], Float[np.ndarray, " across"]]:
    """The similarities of all pairs of different steps, each pair once: those of one scene, and the others."""
    first, second = np.triu_indices(len(scenes), 1)
    same = scenes[first] == scenes[second]
    values = similarity[first, second]
    return values[same], values[~same]


def within_and_across(
    similarity: Float[np.ndarray, "steps steps"],
    scenes: Int[np.ndarray, " steps"] | Bool[np.ndarray, " steps"],
) -> SceneSimilarity:
    """Mean similarity within and across scenes, over all pairs of different steps (the diagonal is left out).

    ``scenes`` labels the steps: the output of `scene_labels`, or a foreground mask of cut-and-paste.
    Raises ValueError when there is no pair of one of the two kinds: a clip needs two scenes, one of them of
    at least two steps.
    """
    within, across = scene_pairs(similarity, scenes)
    if within.size == 0 or across.size == 0:
        raise ValueError(
            f"scenes {scenes.tolist()}: {within.size} pairs of steps within a scene, {across.size} across; "
            "both kinds are needed, so leave this clip out or sample more steps"
        )
    return SceneSimilarity(float(within.mean()), float(across.mean()))
