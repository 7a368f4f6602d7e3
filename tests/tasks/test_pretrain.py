"""The task against the losses put together by hand, and on several processes against one.

Run as a program this file is one of those processes.
"""

import os
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from small import CONFIG, batch, model
from svilm.config import ConfigError, override
from svilm.data.augment import targets
from svilm.data.language import Tokenizer
from svilm.data.manifest import ManifestError
from svilm.engine.task import Context
from svilm.engine.trainer import Training, backward
from svilm.losses import grounding_similarity, soft_target_contrastive_loss, temporal_grouping_loss
from svilm.models.grouping import GroupingConfig
from svilm.recipes import recipe
from svilm.runtime import all_reduce_gradients, close_distributed, init_distributed, rank, world_size
from svilm.tasks.common import encode_packed
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Paste

CLIPS = 8


def quiet_model():
    """Without Gumbel noise, in float64: the draws of several processes would differ."""
    video = CONFIG.video.model_copy(update={"grouping": GroupingConfig(gumbel=False, zero_init=False)})
    return model(config=CONFIG.model_copy(update={"video": video})).double().train()


def terms_of(config=Pretrain(), data=None, encoder=None):  # noqa: B008 (frozen settings)
    encoder, data = encoder or quiet_model(), data or batch(CLIPS)
    task = PretrainTask(config)
    return task.loss(encoder, task.features(encoder, data), data)


def test_each_term_is_the_loss_of_the_paper():
    encoder, data = quiet_model(), batch(CLIPS)
    video = encoder.encode_video(data.video)
    text = encoder.encode_text(data.text_ids, data.text_mask).embedding
    wanted = targets(data.paste)
    contrast = soft_target_contrastive_loss(video.embedding @ text[data.caption_index].T, wanted, 0.07)
    similarity = grounding_similarity(video.group_embedding, text[data.noun_index], data.noun_mask, 0.1)
    grounding = soft_target_contrastive_loss(similarity, wanted, 0.07)
    grouping = temporal_grouping_loss(video.tokens, data.paste.mask, 0.1)
    terms = terms_of(encoder=encoder, data=data)
    for name, value in {"contrast": contrast, "grounding": grounding, "grouping": grouping}.items():
        torch.testing.assert_close(terms.losses[name], value.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(terms.total, contrast + grounding + grouping, atol=1e-6, rtol=1e-6)


def test_weights_scale_the_terms_and_zero_leaves_them_out():
    full = terms_of().losses
    terms = terms_of(Pretrain(contrast=0.0, grounding=2.0, grouping=0.5))
    assert set(terms.losses) == {"grounding", "grouping"}
    assert terms.total.item() == pytest.approx(2 * full["grounding"].item() + 0.5 * full["grouping"].item())


def test_short_and_long_texts_apart_give_the_same_vectors():
    encoder, data = quiet_model().eval(), batch(CLIPS)
    together = encoder.encode_text(data.text_ids, data.text_mask).embedding
    torch.testing.assert_close(encode_packed(encoder, data.text_ids, data.text_mask), together)
    torch.testing.assert_close(encode_packed(encoder, data.text_ids[:1], data.text_mask[:1]), together[:1])


def test_all_weights_zero_is_refused():
    with pytest.raises(ValueError, match="all three loss weights are 0"):
        PretrainTask(Pretrain(contrast=0, grounding=0, grouping=0))


def test_temporal_grouping_needs_cut_and_paste():
    with pytest.raises(ValueError, match=r"data\.paste\.probability"):
        terms_of(data=batch(CLIPS, paste=False))
    assert terms_of(Pretrain(grouping=0), batch(CLIPS, paste=False)).total.isfinite()


def test_a_clip_alone_has_nothing_to_be_pasted_into():
    run = override(recipe("tiny"), ["data.batch=1", "data.manifest=x.jsonl"])
    context = Context(Path(), 0, torch.device("cpu"), run.data, model, lambda: Tokenizer.train(["a"], 50))
    with pytest.raises(ConfigError, match=r"data.batch = 1 on 1 ranks is one clip for each"):
        run.task.job(context)
    with pytest.raises(ManifestError, match=r"x\.jsonl: no such manifest"):
        override(run.task, ["grouping=0"]).job(context)


def test_a_window_of_several_tubelets_averages_steps():
    data = batch(CLIPS)
    coarse = Paste(torch.tensor([[True, False]] * CLIPS), data.paste.partner)
    fine = Paste(torch.tensor([[True, True, False, False]] * CLIPS), data.paste.partner)
    one = terms_of(data=replace(data, paste=coarse)).losses["grouping"]
    other = terms_of(data=replace(data, paste=fine)).losses["grouping"]
    assert one.isfinite() and not torch.isclose(one, other)
    three = Paste(torch.tensor([[True, False, True]] * CLIPS), data.paste.partner)
    with pytest.raises(ValueError, match="clip_window makes 3 windows of 4"):
        terms_of(data=replace(data, paste=three))


def test_captions_without_nouns_leave_the_grounding_loss():
    """The loss equals that over the other captions alone, whatever the silent caption's noun vectors hold."""
    data = batch(CLIPS, paste=False)
    mask = data.noun_mask.clone()
    mask[2] = False
    config = Pretrain(contrast=0, grouping=0)
    encoder = quiet_model()
    silent = replace(data, noun_mask=mask)
    features = PretrainTask(config).features(encoder, silent)
    similarity = grounding_similarity(features["groups"], features["nouns"], mask, 0.1) / 0.07
    heard = [i for i in range(CLIPS) if i != 2]
    rows = torch.stack([-similarity[i, heard].log_softmax(0)[k] for k, i in enumerate(heard)]).mean()
    columns = torch.stack([-similarity[:, i].log_softmax(0)[i] for i in heard]).mean()
    loss = PretrainTask(config).loss(encoder, features, silent).total
    torch.testing.assert_close(loss, rows + columns, atol=1e-6, rtol=1e-6)


def test_no_nouns_at_all_is_finite_with_finite_gradients():
    data = batch(CLIPS)
    encoder = model()
    backward(
        encoder,
        PretrainTask(Pretrain()),
        replace(data, noun_mask=torch.zeros_like(data.noun_mask)),
        Training(),
    )
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_equal_captions_can_leave_the_negatives():
    data = batch(CLIPS, paste=False)
    twins = replace(data, captions=("same",) * 2 + data.captions[2:])
    config = Pretrain(grounding=0, grouping=0)
    with_twins = terms_of(config.model_copy(update={"mask_duplicates": True}), twins)
    assert with_twins.total < terms_of(config, twins).total
    assert terms_of(config.model_copy(update={"mask_duplicates": True}), data).total == terms_of(config, data).total


def test_group_usage_is_watched():
    watched = terms_of().watched
    assert 1 <= watched["groups/live_per_clip"] <= watched["groups/live_in_batch"] <= 4
    assert 0 <= watched["groups/entropy"] <= 1
    assert watched["temperature/contrast"].item() == pytest.approx(0.07)


def global_batch(world):
    """Partners are a derangement of the clips that each of so many processes holds."""
    data = batch(CLIPS)
    partner = torch.arange(CLIPS).view(world, -1).roll(1, dims=1).flatten()
    mask = data.noun_mask.clone()
    mask[3] = False
    steps = data.paste.mask.clone()
    steps[[0, 1, 3]] = True  # whole clips: of two processes one has a pasted clip, of four one has none
    partner[[0, 1, 3]] = torch.tensor([0, 1, 3])
    return replace(data, paste=Paste(steps, partner), noun_mask=mask)


CONFIGS = {"all": Pretrain(), "duplicates": Pretrain(mask_duplicates=True, grouping_kind="bce")}


def share_of(data, first, count):
    part = data.part(first, first + count)
    partner = data.paste.partner[first : first + count] - first
    return replace(part, paste=Paste(data.paste.mask[first : first + count], partner))


def gradients_of(config, data, micro=0):
    encoder = quiet_model()
    backward(encoder, PretrainTask(config), data, Training(micro_batch=micro))
    all_reduce_gradients(encoder.parameters())
    return {name: p.grad for name, p in encoder.named_parameters()}


@pytest.mark.parametrize("world", [2, 4])
def test_the_gradient_of_several_processes_is_that_of_one(world, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**common, "RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(world)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=180)
        assert process.returncode == 0, error
    for name, config in CONFIGS.items():
        alone = gradients_of(config, global_batch(world))
        for number in range(world):
            for parameter, gradient in torch.load(tmp_path / f"{name}{number}.pt").items():
                torch.testing.assert_close(gradient, alone[parameter], atol=1e-10, rtol=0, msg=f"{name} {parameter}")


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    init_distributed(torch.device("cpu"), timeout_minutes=1)
    size = CLIPS // world_size()
    for title, settings in CONFIGS.items():
        own = share_of(global_batch(world_size()), rank() * size, size)
        found = gradients_of(settings, own, micro=1 if title == "all" else 0)
        torch.save(found, Path(sys.argv[1]) / f"{title}{rank()}.pt")
    close_distributed()
