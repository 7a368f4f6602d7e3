"""The runs behind the tables: which recipe, on which data, from whose weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A run that some table needs."""

    name: str
    """Its folder."""
    recipe: str
    tiny: str
    """The recipe that stands in for it on the drawn world."""
    train: str
    """Names of data (``sources``)."""
    test: str
    start: str = ""
    """The step whose model it starts from."""


def _pretraining() -> list[Step]:
    rows = {
        "": ("paper", "tiny", "videocc-activitynet"),
        "-16-frames": ("paper-16-frames", "tiny-half-frames", "videocc-activitynet"),
        "-howto100m": ("paper", "tiny", "howto100m"),
        "-activitynet": ("paper", "tiny", "activitynet-captions"),
        "-contrastive": ("paper-contrastive", "tiny-contrastive", "videocc"),
        "-grounding": ("paper-grounding", "tiny-grounding", "videocc"),
        "-grouping": ("paper-grouping", "tiny-grouping", "videocc"),
        "-all": ("paper", "tiny", "videocc"),
    }
    return [Step(f"pretrain{key}", recipe, tiny, data, "msrvtt-test") for key, (recipe, tiny, data) in rows.items()]


def _downstream(pretraining: str) -> list[Step]:
    """All tasks that a pre-trained model is carried to."""
    start = f"pretrain{pretraining}"
    rows = [
        ("msrvtt", "tiny-retrieval", "msrvtt-train", "msrvtt-test"),
        ("msrvtt-qa", "tiny-qa", "msrvtt-qa-train", "msrvtt-qa-test"),
        ("msvd-qa", "tiny-qa", "msvd-qa-train", "msvd-qa-test"),
        ("ucf101-linear", "tiny-linear", "ucf101-train", "ucf101-test"),
        ("ucf101", "tiny-recognition", "ucf101-train", "ucf101-test"),
        ("hmdb51-linear", "tiny-linear", "hmdb51-train", "hmdb51-test"),
        ("hmdb51", "tiny-recognition", "hmdb51-train", "hmdb51-test"),
        ("activitynet", "tiny-localization", "activitynet-training", "activitynet-validation"),
        ("ava", "tiny-ava", "ava-train", "ava-val"),
    ]
    half = pretraining == "-16-frames"
    return [
        Step(
            f"{recipe}{pretraining}",
            f"{recipe}-16-frames" if half and recipe.startswith("ucf101") else recipe,
            f"{tiny}-half-frames" if half and tiny in ("tiny-linear", "tiny-recognition") else tiny,
            train,
            test,
            start,
        )
        for recipe, tiny, train, test in rows
    ]


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in [
        *_pretraining(),
        *(step for first in _pretraining() for step in _downstream(first.name.removeprefix("pretrain"))),
    ]
}
"""Every run that a table needs, by name."""
