import math
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from small import CONFIG, batch, model
from svilm.config import ConfigError
from svilm.engine.checkpoint import Checkpoints, load_state
from svilm.engine.logbook import read_metrics
from svilm.engine.optim import Optim
from svilm.engine.state import Meter
from svilm.engine.task import Task
from svilm.engine.trainer import NonFiniteError, Training, _mean_of_ranks, backward, train
from svilm.models.grouping import GroupingConfig
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Terms


def quiet(config=CONFIG):
    """The small model without Gumbel noise, so that the order in which noise is drawn does not matter."""
    return config.model_copy(
        update={"video": config.video.model_copy(update={"grouping": GroupingConfig(gumbel=False, zero_init=False)})}
    )


def gradients(encoder, training, clips=8):
    encoder.train()
    task = PretrainTask(Pretrain())
    terms = backward(encoder, task, batch(clips), training)
    return {name: p.grad.clone() for name, p in encoder.named_parameters()}, terms


@pytest.mark.parametrize("micro", [1, 3, 4, 8])
def test_parts_give_the_gradient_of_the_whole_batch(micro):
    whole, terms = gradients(model(config=quiet()).double(), Training())
    parts, same = gradients(model(config=quiet()).double(), Training(micro_batch=micro))
    assert same.total.item() == pytest.approx(terms.total.item(), abs=1e-12)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_parts_replay_their_noise():
    """With Gumbel noise: equal to one graph over the parts, drawn from the same random state."""
    encoder, task, data = model().double().train(), PretrainTask(Pretrain()), batch(8)
    torch.manual_seed(5)
    pieces = [task.features(encoder, data.part(i, i + 4)) for i in (0, 4)]
    joined = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    task.loss(encoder, joined, data).total.backward()
    wanted = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    torch.manual_seed(5)
    backward(encoder, task, data, Training(micro_batch=4))
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


def run(folder, steps, *, stop=None, training=None, encoder=None, optim=None, data=batch, **more):
    """Train the small model on noise; ``stop`` raises KeyboardInterrupt before that step."""

    def batches(start, end):
        for step in range(start, end):
            if step == stop:
                raise KeyboardInterrupt
            yield data(seed=step)

    return train(
        encoder or model(),
        PretrainTask(Pretrain()),
        batches,
        training=training or Training(steps=steps, log_every=1, save_every=2),
        optim=optim or Optim(optimizer="adamw", lr=1e-2),
        steps=steps,
        seed=3,
        device=torch.device("cpu"),
        folder=folder,
        **more,
    )


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, average):
    training = Training(steps=5, log_every=1, save_every=2, average=average)
    straight = run(tmp_path / "a", 5, training=training)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", 5, training=training, stop=3)
    assert Checkpoints(tmp_path / "b" / "checkpoints").latest().name == "step_00000002"
    resumed = run(tmp_path / "b", 5, training=training, encoder=model(seed=99))
    for (name, one), (_, other) in zip(straight.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(read_metrics(tmp_path / "a"), read_metrics(tmp_path / "b"), strict=True):
        assert one["loss/total"] == other["loss/total"]


def test_weights_of_the_task_are_not_averaged(tmp_path):
    class Headed(PretrainTask):
        def __init__(self):
            super().__init__(Pretrain())
            self.head = torch.nn.Linear(2, 2)

    training = Training(steps=2, average=0.9)
    with pytest.raises(ConfigError, match=r"training\.average = 0\.9: .* use training\.average=0"):
        train(
            model(), Headed(), lambda start, stop: [batch()] * 2, training=training, optim=Optim(), steps=2, seed=0,
            device=torch.device("cpu"), folder=tmp_path,
        )  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_log_speaks_of_all_ranks(ranks, tmp_path, monkeypatch):
    def everyone(value):
        return [{name: number + other for name, number in value.items()} for other in range(ranks)]

    monkeypatch.setattr("svilm.engine.trainer.gather_objects", everyone)
    monkeypatch.setattr("svilm.engine.state.world_size", lambda: ranks)
    assert _mean_of_ranks({"loss/total": 2.0}) == {"loss/total": 2.0 + (ranks - 1) / 2}
    meter = Meter()
    meter.time(0.5, 2.0, 8)
    assert meter.read()["speed/clips_per_second"] == pytest.approx(4.0 * ranks)


def test_training_lowers_the_loss_on_one_batch(tmp_path):
    run(tmp_path, 30, data=lambda seed: batch(seed=0))
    rows = read_metrics(tmp_path)
    assert rows[-1]["loss/total"] < 0.6 * rows[0]["loss/total"]


def test_what_is_logged(tmp_path):
    run(tmp_path, 2)
    assert set(read_metrics(tmp_path)[-1]) >= {
        "step", "loss/total", "loss/contrast", "loss/grounding", "loss/grouping", "temperature/contrast",
        "temperature/grounding", "groups/live_per_clip", "groups/live_in_batch", "groups/entropy",
        "optim/gradient_norm", "optim/lr", "speed/clips_per_second", "speed/waiting_for_data", "data/skipped",
    }  # fmt: skip


class Broken(Task):
    """A task whose loss is not a number from the second step on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def features(self, model, data):
        return {"video": model.encode_video(data.video).embedding}

    def loss(self, model, features, data):
        self.calls += 1
        value = features["video"].sum() * (1.0 if self.calls == 1 else math.nan)
        return Terms(value, {"contrast": value.detach()})


def test_a_loss_that_is_not_a_number_stops_before_the_optimiser(tmp_path):
    encoder = model()
    with pytest.raises(NonFiniteError, match=r"step 1: contrast, gradient norm not finite.*clip0, clip1"):
        train(
            encoder,
            Broken(),
            lambda start, stop: (batch(seed=s) for s in range(start, stop)),
            training=Training(steps=3),
            optim=Optim(),
            steps=3,
            seed=0,
            device=torch.device("cpu"),
            folder=tmp_path,
        )
    assert all(p.isfinite().all() for p in encoder.parameters())
    assert "clip7" in (tmp_path / "nonfinite.json").read_text()


def test_too_many_unreadable_clips_stop_the_run(tmp_path):
    def data(seed):
        return replace(batch(seed=seed), skipped={"damaged": 5})

    with pytest.raises(ValueError, match=r"10 of 26 clips.*damaged: 10.*skip_budget = 0.1"):
        run(tmp_path, 9, data=data, skip_budget=0.1)


@pytest.mark.parametrize(
    ("budget", "bad", "stops"), [(0.0, 1, True), (0.0, 0, False), (0.01, 8, False), (0.01, 9, True)]
)
def test_no_budget_allows_no_unreadable_clip_and_a_small_one_a_few(budget, bad, stops):
    meter, seen = Meter(), replace(batch(), skipped={"damaged": bad} if bad else {})
    with pytest.raises(ValueError, match=f"{bad} of {8 + bad} clips") if stops else nullcontext():
        meter.count(seen, budget)


def test_the_first_batch_is_seen_once_before_any_step(tmp_path):
    seen = []
    run(tmp_path, 3, first_batch=seen.append)
    assert [b.ids[0] for b in seen] == ["clip0"]


def test_evaluations_on_the_way_are_logged(tmp_path):
    run(
        tmp_path,
        4,
        training=Training(steps=4, log_every=2, save_every=4, evaluate_every=2),
        evaluate=lambda encoder: {"retrieval/text_to_video/R@1": 12.0},
    )
    found = [row for row in read_metrics(tmp_path) if "retrieval/text_to_video/R@1" in row]
    assert [row["step"] for row in found] == [2]


def test_bf16_keeps_weights_in_fp32_and_finite(tmp_path):
    encoder = run(tmp_path, 2, training=Training(steps=2, precision="bf16", micro_batch=4))
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in encoder.parameters())


def test_the_best_weights_are_kept(tmp_path):
    """Also over an interruption, after which the best step is not judged again."""
    values = {1: 0.0, 2: 7.0, 3: 1.0, 4: 3.0}
    training = Training(steps=4, save_every=1, evaluate_every=1, keep="best")

    seen = {}

    def judge(encoder):
        step = len(seen) + 1
        seen[step] = {name: p.detach().clone() for name, p in encoder.named_parameters()}
        return values[step]

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 4, training=training, judge=judge, stop=2)
    best = run(tmp_path, 4, training=training, judge=judge, encoder=model(seed=9))
    assert set(seen) == {1, 2, 3, 4}
    for name, parameter in best.named_parameters():
        assert torch.equal(parameter, seen[2][name]), name
    assert [row["keep/best"] for row in read_metrics(tmp_path) if "keep/best" in row] == [0.0, 7.0, 1.0, 3.0]


def test_the_best_weights_of_steps_that_are_taken_again_are_forgotten(tmp_path):
    training = Training(steps=4, save_every=2, evaluate_every=1, keep="best")
    values = {"killed": iter([1.0, 2.0, 9.0]), "resumed": iter([5.0, 4.0])}
    seen = []

    def judge(encoder):
        seen.append({name: p.detach().clone() for name, p in encoder.named_parameters()})
        return next(values["resumed" if len(seen) > 3 else "killed"])

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 4, training=training, judge=judge, stop=3)
    best = run(tmp_path, 4, training=training, judge=judge, encoder=model(seed=9))
    for name, parameter in best.named_parameters():
        assert torch.equal(parameter, seen[3][name]), name
    assert load_state(Checkpoints(tmp_path / "best").latest())["value"] == 5.0


def test_the_best_weights_need_something_to_choose_by(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.validation"):
        run(tmp_path, 1, training=Training(steps=1, keep="best"))


@pytest.mark.parametrize(
    ("stop", "number", "code"), [(1, signal.SIGTERM, 0), (3, signal.SIGTERM, 0), (2, signal.SIGINT, 130)]
)
def test_a_signal_saves_the_very_step_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, stop, number, code, capsys):
    def interrupted(seed):
        if seed == stop:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # torchrun passes on what all have got
        return batch(seed=seed)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    training = Training(steps=5, log_every=1, save_every=100)
    straight = run(tmp_path / "a", 5, training=training)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "b", 5, training=training, data=interrupted)
    assert stopped.value.code == code and f"{number.name} at step {stop + 1}; " in capsys.readouterr().err
    assert {signal.getsignal(each) for each in before} == {signal.SIG_IGN}  # it is ending
    for each, handler in before.items():
        signal.signal(each, handler)
    assert Checkpoints(tmp_path / "b" / "checkpoints").latest().name == f"step_{stop + 1:08d}"
    resumed = run(tmp_path / "b", 5, training=training, encoder=model(seed=99))
    for (name, one), (_, other) in zip(straight.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_who_asks_again_is_not_kept_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("svilm.engine.trainer.IMPATIENCE", 0.0)

    def interrupted(seed):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        return batch(seed=seed)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2, data=interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_loader_is_not_taken_for_a_stop(tmp_path):
    def broken(seed):
        raise RuntimeError("a worker died")

    with pytest.raises(RuntimeError, match="a worker died"):
        run(tmp_path, 2, data=broken)
