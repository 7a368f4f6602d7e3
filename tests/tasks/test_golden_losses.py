"""The losses and gradients of `tiny` on fixed numbers, as they were before anything was made faster.

Recorded from version 0.1.0 (torch 2.13, one thread of a CPU).  Run as a program this file prints what the code of
today gives: a change that is meant to alter a loss needs new numbers here, and a reason in the log.  Weights and batch
are drawn by one generator whose numbers are the same on every machine, so that neither libraries' initialisations nor
their noise take part; Gumbel noise is drawn where torch draws it as it did when this was recorded.
"""

import pprint

import pytest
import torch

from svilm.engine.trainer import Training, backward
from svilm.models.dual import SIZES, DualEncoder
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Batch, Entry, Paste

CLIPS = 12
GOLDEN: dict[str, dict[str, float]] = {
    "without noise": {
        "contrast": 5.0996418,
        "grounding": 5.207324,
        "grouping": 0.2005571,
        "gradient of contrast_log_scale": 0.29835063,
        "gradient of grounding_log_scale": 0.43845049,
        "gradient of video.position": 0.45214355,
        "gradient of video.group_tokens": 2.6269378,
        "gradient of video.patch": 11.787947,
        "gradient of video.blocks": 10.560786,
        "gradient of video.grouping": 4.7947573,
        "gradient of video.norm": 0.013770339,
        "gradient of video.norm_groups": 0.2353633,
        "gradient of text": 5.5797515,
        "gradient of video_projection": 2.3933383,
        "gradient of text_projection": 2.3215787,
    },
    "with noise": {
        "contrast": 5.0761037,
        "grounding": 5.1505866,
        "grouping": 0.20057899,
        "gradient of contrast_log_scale": 0.28069234,
        "gradient of grounding_log_scale": 0.34654766,
        "gradient of video.position": 0.22493477,
        "gradient of video.group_tokens": 0.83624834,
        "gradient of video.patch": 6.7123089,
        "gradient of video.blocks": 6.7852486,
        "gradient of video.grouping": 3.1149354,
        "gradient of video.norm": 0.013766253,
        "gradient of video.norm_groups": 0.22027392,
        "gradient of text": 5.399639,
        "gradient of video_projection": 2.2957941,
        "gradient of text_projection": 2.267982,
    },
}


def encoder(gumbel: bool) -> DualEncoder:
    """`tiny` with weights between plus and minus sqrt(3 / inputs), norms around 1."""
    size = SIZES["tiny"]
    video = size.video.model_copy(update={"grouping": size.video.grouping.model_copy(update={"gumbel": gumbel})})
    dual = DualEncoder(size.model_copy(update={"video": video}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(dual.named_parameters()):
            if "log_scale" in name:
                continue
            noise = torch.rand(parameter.shape, generator=generator) * 2 - 1
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + ("norm" in name.lower() and name.endswith("weight")))
            else:
                parameter.copy_(noise * (3 / parameter.shape[-1]) ** 0.5)
    return dual


def batch() -> Batch:
    """Clips of 8 frames of 64x64; captions of 9 to 20 word pieces, prompts of 6 to 10; clip 0 has one noun only."""
    g = torch.Generator().manual_seed(2)
    lengths = torch.cat([torch.randint(9, 21, (CLIPS,), generator=g), torch.randint(6, 11, (15,), generator=g)])
    mask = torch.arange(20)[None] < lengths[:, None]
    starts = torch.randint(0, 2, (CLIPS,), generator=g)[:, None]
    steps = torch.arange(4)[None]
    noun_mask = torch.ones(CLIPS, 2, dtype=torch.bool)
    noun_mask[0, 1] = False
    return Batch(
        entries=tuple(Entry(f"clip{i}", f"{i}.mp4", (f"caption {i}",), (("noun",),)) for i in range(CLIPS)),
        captions=tuple(f"caption {i}" for i in range(CLIPS)),
        nouns=(("noun",),) * CLIPS,
        video=torch.randint(0, 256, (CLIPS, 8, 64, 64, 3), generator=g, dtype=torch.uint8),
        seconds=torch.arange(8.0).expand(CLIPS, 8),
        view=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(CLIPS, 4),
        text_ids=torch.randint(1, 2048, mask.shape, generator=g) * mask,
        text_mask=mask,
        caption_index=torch.arange(CLIPS),
        noun_index=torch.randint(CLIPS, CLIPS + 15, (CLIPS, 2), generator=g),
        noun_mask=noun_mask,
        paste=Paste((steps >= starts) & (steps < starts + 2), torch.arange(CLIPS).roll(1)),
    )


def measured(gumbel: bool, micro: int = 0) -> dict[str, float]:
    """The three losses, and the norm of the gradient that each part of the model gets from them."""
    dual = encoder(gumbel).train()
    torch.manual_seed(3)
    terms = backward(dual, PretrainTask(Pretrain()), batch(), Training(micro_batch=micro))
    parts: dict[str, float] = {}
    for name, parameter in dual.named_parameters():
        if parameter.grad is not None:
            words = name.split(".")
            part = ".".join(words[:2]) if words[0] == "video" else words[0]
            parts[part] = parts.get(part, 0.0) + float(parameter.grad.double().square().sum())
    losses = {name: float(value) for name, value in terms.losses.items()}
    return {**losses, **{f"gradient of {part}": square**0.5 for part, square in parts.items()}}


@pytest.mark.parametrize("micro", [0, 4])
def test_losses_and_gradients_are_those_recorded(micro):
    assert measured(gumbel=False, micro=micro) == pytest.approx(GOLDEN["without noise"], rel=2e-5)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL torch draws other exponential numbers")
def test_losses_and_gradients_with_noise_are_those_recorded():
    assert measured(gumbel=True) == pytest.approx(GOLDEN["with noise"], rel=2e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    pprint.pprint({"without noise": measured(gumbel=False), "with noise": measured(gumbel=True)}, sort_dicts=False)
