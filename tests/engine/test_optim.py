import math

import pytest
import torch

from svilm.config import ConfigError, build
from svilm.engine.optim import Optim, build_optimizer, part_of, rate_at, set_rate
from svilm.models.dual import SIZES, DualEncoder


def test_rate_rises_linearly_then_falls_to_final():
    config = Optim(warmup=0.1, final=0.2)
    rates = [rate_at(config, step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.2, abs=1e-2)
    halfway = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.5))
    assert rate_at(config, 55, 100) == pytest.approx(halfway)


def test_the_cosine_ends_one_step_after_the_last():
    config = Optim(warmup=0.0, final=0.1)
    assert rate_at(config, 10, 10) == pytest.approx(0.1)
    assert rate_at(config, 9, 10) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(0.9 * math.pi)))


def test_rate_without_warmup_starts_at_the_peak():
    assert rate_at(Optim(warmup=0.0), 0, 10) == 1.0


def test_groups_hold_every_parameter_once_with_its_own_rate_and_decay():
    model = DualEncoder(SIZES["tiny"])
    optimizer = build_optimizer(
        Optim(optimizer="adamw", lr=0.01, lr_video=0.1, lr_text=0.5, weight_decay=0.2),
        model.named_parameters(),
    )
    owner = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(owner) == len(list(model.parameters()))
    set_rate(optimizer, 0.01)
    named = dict(model.named_parameters())
    expected = {
        "video.blocks.0.mlp.up.weight": (0.001, 0.2),
        "video.blocks.0.mlp.up.bias": (0.001, 0.0),
        "video.position": (0.001, 0.0),
        "video.group_tokens": (0.01, 0.0),
        "video.grouping.0.query.weight": (0.01, 0.2),
        "video_projection.weight": (0.01, 0.2),
        "text.bert.encoder.layer.0.attention.self.query.weight": (0.005, 0.2),
        "text.bert.embeddings.word_embeddings.weight": (0.005, 0.0),
        "contrast_log_scale": (0.01, 0.0),
    }
    for name, (rate, decay) in expected.items():
        group = owner[id(named[name])]
        assert (group["lr"], group["weight_decay"]) == (pytest.approx(rate), decay), name


def test_layer_norms_are_not_decayed():
    model = DualEncoder(SIZES["tiny"])
    optimizer = build_optimizer(Optim(weight_decay=0.1), model.named_parameters())
    for group in optimizer.param_groups:
        if group["weight_decay"]:
            assert all(p.ndim >= 2 for p in group["params"])


def test_frozen_parameters_are_left_out():
    model = DualEncoder(SIZES["tiny"].model_copy(update={"learn_temperature": False}))
    optimizer = build_optimizer(Optim(), model.named_parameters())
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(model.contrast_log_scale) not in inside


@pytest.mark.parametrize(
    ("name", "part"),
    [("video.patch.weight", "video"), ("video.norm_groups.weight", "new"), ("text_projection.weight", "new")],
)
def test_part_of(name, part):
    assert part_of(name) == part


def test_sgd_is_the_papers():
    optimizer = build_optimizer(Optim(), [("a.weight", torch.nn.Parameter(torch.zeros(2, 2)))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_milestones_are_stairs_instead_of_a_cosine():
    config = Optim(optimizer="adam", warmup=0.0, milestones=(0.5, 0.75))
    rates = [rate_at(config, step, 8) for step in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("milestones", [30, 60]),
        ("milestones", [0.5, 0.25]),
        ("milestones", [0.5, 0.5]),
        ("milestones", [0.5, 1]),
        ("milestones", [0, 0.5]),
        ("momentum", -0.1),
        ("momentum", 1),
        ("betas", [0.9, 1]),
        ("betas", [-0.1, 0.9]),
    ],
)
def test_numbers_that_could_do_nothing_or_harm_are_refused(setting, value):
    with pytest.raises(ConfigError, match=rf"^{setting}") as refused:
        build(Optim, {setting: value})
    assert setting != "milestones" or "shares of the run, not epochs" in str(refused.value)
    assert build(Optim, {"milestones": [0.3, 0.6], "momentum": 0, "betas": [0, 0.999]}).milestones == (0.3, 0.6)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_one_kernel_for_all_parameters_takes_the_same_steps(kind):
    """`fused` is about speed: the step of every parameter by itself comes out."""
    start = {name: torch.randn(5, 3) for name in ("video.a.weight", "text.b.weight", "c.bias")}
    config = Optim(optimizer=kind, lr=0.1, lr_text=0.5, weight_decay=0.3)
    ends = []
    for fused in (True, False):
        named = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        optimizer = build_optimizer(config, named.items())
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for step in range(3):
            set_rate(optimizer, 0.1 / (step + 1))
            for parameter in named.values():
                parameter.grad = parameter.detach().sin() + step
            optimizer.step()
        ends.append(named)
    torch.testing.assert_close(*ends)
