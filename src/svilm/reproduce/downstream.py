"""Every downstream task of the paper from one pre-trained model, on the drawn world: scores beside baselines."""

from collections.abc import Mapping
from dataclasses import dataclass

from svilm.reproduce.harness import Workshop, markdown, number
from svilm.reproduce.steps import STEPS


@dataclass(frozen=True)
class Line:
    """A task with the metric that stands for it, and what scores without the model having learned anything."""

    title: str
    step: str
    metric: str
    baselines: Mapping[str, str]


LINES = (
    Line(
        "retrieval, fine-tuned (R@10)",
        "msrvtt",
        "retrieval/text_to_video/R@10",
        {
            "chance": "retrieval_chance/text_to_video/R@10",
            "untrained": "retrieval_untrained/text_to_video/R@10",
        },
    ),
    Line(
        "question answering (accuracy)",
        "msrvtt-qa",
        "vqa/accuracy",
        {"most frequent answer": "vqa_majority/accuracy", "without the video": "vqa_blind/accuracy"},
    ),
    Line(
        "recognition of looks, linear probe (top-1)",
        "ucf101-linear",
        "recognition/top-1",
        {
            "chance": "recognition_chance/top-1",
            "most frequent class": "recognition_majority/top-1",
            "zero-shot, by the names of the classes": "recognition_zero_shot/top-1",
        },
    ),
    Line(
        "recognition of looks, fine-tuned (top-1)",
        "ucf101",
        "recognition/top-1",
        {"chance": "recognition_chance/top-1", "most frequent class": "recognition_majority/top-1"},
    ),
    Line(
        "temporal localization (average mAP)",
        "activitynet",
        "localization/average_mAP",
        {
            "random segments": "localization_random/average_mAP",
            "whole video": "localization_whole_video/average_mAP",
        },
    ),
    Line(
        "boxes with actions, detected (mAP)",
        "ava",
        "ava_detected/mAP@0.50",
        {"class frequencies": "ava_detected_frequency/mAP@0.50"},
    ),
    Line(
        "boxes with actions, true boxes (mAP)",
        "ava",
        "ava_truth_boxes/mAP@0.50",
        {"class frequencies": "ava_truth_boxes_frequency/mAP@0.50"},
    ),
)


def run_downstream(workshop: Workshop) -> str:
    """Run every task (or read what is finished) and return the table in Markdown."""
    rows = []
    for line in LINES:
        scores = workshop.scores(STEPS[line.step])
        beside = ", ".join(f"{name} {number(scores[key])}" for name, key in line.baselines.items() if key in scores)
        rows.append([line.title, number(scores[line.metric]), beside])
    notes = [f"- {workshop.protocol(STEPS[name])}" for name in dict.fromkeys(line.step for line in LINES)]
    head = ["# Downstream tasks on the drawn world", ""]
    return "\n".join([*head, *markdown(["task", "ours", "baselines"], rows), "", *notes]) + "\n"
