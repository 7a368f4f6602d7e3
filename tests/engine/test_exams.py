"""Which weights are the best: after numbers that are none, interruptions, and on a full disk."""

import math
from itertools import chain, repeat

import pytest
import torch

from small import model
from svilm.engine import checkpoint
from svilm.engine.exams import Best
from svilm.tasks.pretrain import Pretrain, PretrainTask


class Examined:
    """A model whose weights are all the number of their step, and what a judge says of them."""

    def __init__(self, folder):
        self.model, self.value = model(), 0.0
        self.best = Best(folder, lambda model: self.value, self.model, PretrainTask(Pretrain()))

    def take(self, step, value, weight=None):
        self.value = value
        self._fill(step if weight is None else weight)
        assert self.best.consider(step) is value

    def restored(self):
        self.best.restore()
        return next(self.model.parameters()).flatten()[0].item()

    def _fill(self, weight):
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(weight)


@pytest.fixture
def examined(tmp_path):
    return Examined(tmp_path)


@pytest.mark.parametrize(
    ("values", "kept"),
    [((math.nan, 0.2, 0.9), 3), ((math.nan, -math.inf, math.nan), 1), ((0.2, math.nan, 0.1), 1), ((0.2, 0.2), 1)],
)
def test_a_number_that_is_none_is_worse_than_any(examined, values, kept):
    for step, value in enumerate(values, start=1):
        examined.take(step, value)
    assert examined.restored() == kept


def test_what_an_interrupted_run_kept_after_its_checkpoint_is_judged_again(tmp_path):
    before = Examined(tmp_path)
    for step, value in ((100, 0.5), (300, 0.9)):
        before.take(step, value)
    after = Examined(tmp_path)
    after.best.resume(100)  # its numbers differ a little, as they do on another machine
    after.take(200, 0.95, weight=222)
    after.take(300, 0.2)
    assert after.restored() == 222
    after.best.resume(200)
    assert after.restored() == 222
    after.best.resume(0)
    after.take(100, 0.1)
    assert after.restored() == 100


def test_a_full_disk_costs_the_new_best_weights_only(examined, tmp_path, monkeypatch):
    examined.take(1, 0.1)
    write, room = checkpoint._write, chain([True, False], repeat(True))

    def fills(*arguments):
        if not next(room):
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr("svilm.engine.checkpoint._write", fills)
    with pytest.warns(UserWarning, match=r"weights of step 2, the best so far, .*No space left.*; training goes on"):
        examined.take(2, 0.2)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step_00000001"]
    assert examined.restored() == 1
    examined.take(3, 0.15)
    assert examined.restored() == 3


def test_where_nothing_could_be_kept_the_last_weights_stay(examined, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svilm.engine.checkpoint._write", full)
    with pytest.warns(UserWarning, match="No space left"):
        examined.take(1, 0.1)
    with pytest.warns(UserWarning, match=r"best holds no weights; those of the last step are used"):
        assert examined.restored() == 1
