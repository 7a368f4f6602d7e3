"""How the report speaks of a task: what was trained, and its metrics and baselines in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from svilm.run import Run


@dataclass(frozen=True)
class Headline:
    """A score that goes on a tile, with families of scores to set it beside."""

    score: str
    title: str
    beside: Mapping[str, str]
    """Family to its name in few words."""


@dataclass(frozen=True)
class About:
    """The words for a task."""

    title: str
    trained: str
    """Begins the sentence about the run."""
    items: str = "clips"
    headlines: tuple[Headline, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    """Metrics that tables show, with the heads of their columns; empty: all of them."""


_BOXES = {"ava_detected": "Boxes of a person detector", "ava_truth_boxes": "Boxes of the annotators"}

_ABOUT = {
    "vqa": About(
        "Video question answering",
        "Both encoders and a head that chooses an answer, trained",
        "questions about clips",
        (
            Headline(
                "vqa/accuracy",
                "Questions answered right",
                {
                    "vqa_blind": "without the video",
                    "vqa_majority_by_question": "usual answer to it",
                    "vqa_majority": "most frequent answer",
                },
            ),
        ),
        {"accuracy": "right", "coverage": "could be right"},
    ),
    "recognition": About(
        "Action recognition",
        "The video encoder and a linear classifier, trained",
        headlines=(
            Headline(
                "recognition/top-1",
                "Clips of which the class is told (top-1)",
                {
                    "recognition_zero_shot": "zero-shot",
                    "recognition_majority": "most frequent class",
                    "recognition_chance": "chance",
                },
            ),
        ),
        columns={"top-1": "top-1", "top-5": "top-5", "mean_class": "mean over classes"},
    ),
    "localization": About(
        "Temporal action localization",
        "G-TAD on fixed features of a frozen encoder, trained",
        "videos",
        (
            Headline(
                "localization/average_mAP",
                "Actions found in time (average mAP)",
                {"localization_random": "random segments", "localization_whole_video": "whole video"},
            ),
        ),
    ),
    "ava": About(
        "Spatiotemporal action localization",
        "The video encoder and a head that names actions in boxes, trained",
        "keyframes",
        tuple(
            Headline(
                f"{family}/mAP@0.50", f"Actions in {words} (frame mAP)", {f"{family}_frequency": "class frequencies"}
            )
            for family, words in (("ava_detected", "detected boxes"), ("ava_truth_boxes", "annotated boxes"))
        ),
    ),
}

FAMILIES = {
    "vqa": "Answers",
    "recognition_zero_shot": "By the names of the classes alone",
    "recognition": "Classes learned from labels",
    "localization": "Segments with their classes",
    **_BOXES,
}
"""What a family of scores is about."""

BASELINES = {
    "vqa_blind": "The same head, the video blanked out",
    "vqa_majority": "Always the most frequent answer of training",
    "vqa_majority_by_type": "The most frequent answer to that type of question",
    "vqa_majority_by_question": "The most frequent answer to that question",
    "recognition_ridge": "Least squares on the same features",
    "recognition_majority": "Always the most frequent class of the test",
    "recognition_zero_shot_majority": "Always the most frequent class of the test",
    "localization_whole_video": "The whole video as one segment",
    "localization_random": "Random segments",
    **{f"{family}_frequency": "For every box, how frequent an action is in training" for family in _BOXES},
}
"""Families that stand beside another one; others are named after the end of their name."""

METRICS = {
    "average_mAP": "average mAP",
    "average_AP_without_classes": "average AP without classes",
}
"""Metrics that are not called in tables as in scores.json."""

LOSSES = {
    "loss/total": "Total",
    "loss/contrast": "Global contrastive loss (Eq. 7)",
    "loss/grounding": "Spatial grounding loss (Eq. 6)",
    "loss/grouping": "Temporal grouping loss (Eq. 2)",
    "loss/answers": "Cross entropy of the answers",
    "loss/classes": "Cross entropy of the classes",
    "loss/actions": "Binary cross entropy of the actions",
}
"""Terms of losses, in the order in which they are shown."""


def about(run: Run) -> About:
    """The words for a run's task; those of a task that is not ours are made of its name."""
    kind = run.task.kind
    if kind in _ABOUT:
        if kind == "recognition" and getattr(run.task, "mode", "") == "linear":
            known = _ABOUT[kind]
            trained = "Linear classifiers on fixed features of a frozen encoder, trained"
            return About(f"{known.title}, linear", trained, known.items, known.headlines, known.columns)
        return _ABOUT[kind]
    if kind == "pretrain":
        title = "Text-video retrieval" if run.start.model else "Pre-training"
        return About(title, "A video-text dual encoder trained")
    return About(f"Task {kind}", f"Task {kind}, trained")
