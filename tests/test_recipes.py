import json

import pytest
import torch

from svilm.config import ConfigError, build
from svilm.models.dual import DualEncoder
from svilm.plan import describe_plan, plan
from svilm.recipes import RECIPES, recipe
from svilm.run import Run


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json_and_builds_on_the_meta_device(name):
    run = recipe(name)
    assert run.recipe == name
    assert build(Run, json.loads(run.model_dump_json())) == run
    with torch.device("meta"):
        encoder = DualEncoder(run.model)
    assert sum(p.numel() for p in encoder.parameters()) > 1_000_000


@pytest.mark.parametrize("name", RECIPES)
def test_frames_size_and_windows_fit_the_encoder(name):
    run = recipe(name)
    steps, rows, columns = run.model.video.grid
    frames, high, wide = run.model.video.tubelet
    assert run.data.sampling.size == high * rows == wide * columns
    assert run.data.sampling.num_frames in (frames * steps, frames * steps // 2)  # Table 12 halves the frames
    assert run.data.paste.clip_window % frames == 0
    assert run.data.language.max_length <= run.model.text.positions


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        recipe("papers")


def test_the_paper_is_the_papers():
    run = recipe("paper")
    assert (run.data.batch, run.training.epochs, run.optim.optimizer, run.optim.lr) == (1024, 10, "sgd", 0.1)
    assert (run.optim.momentum, run.optim.warmup, run.data.sampling.num_frames) == (0.9, 0.05, 32)
    assert (run.model.video.groups, run.model.video.group_after, run.model.common) == (32, (6, 9, 12), 256)
    assert (run.task.contrast, run.task.grounding, run.task.grouping) == (1, 1, 1)
    assert (run.data.language.max_length, run.data.language.nouns) == (32, 2)


def test_the_plan_of_the_paper_agrees_with_what_is_known_of_it():
    found = plan(recipe("paper"))
    assert found.grid == (16, 14, 14)
    assert found.parameters["text"] == pytest.approx(109e6, rel=0.01)  # BERT-base
    assert found.parameters["video"] == pytest.approx(88e6, rel=0.02)  # ViT-B with 3136 positions
    blocks = 12 * (2 * 12 * 768**2 * 3168 + 4 * 768 * 3168**2)  # matrix products and attention, by hand
    assert found.video_flops == pytest.approx(blocks, rel=0.05)
    assert found.steps == pytest.approx(10 * 3.32e6 / 1024, rel=0.001)


def test_recomputing_keeps_less():
    run = recipe("tiny")
    video = run.model.video.model_copy(update={"recompute": True})
    lean = run.model_copy(update={"model": run.model.model_copy(update={"video": video})})
    assert plan(lean).activation_bytes < 0.6 * plan(run).activation_bytes


def test_the_plan_in_words(tmp_path):
    words = describe_plan(recipe("paper"), tmp_path / "run")
    for needed in ("3136", "32,420 of 1024", "TFLOP", "torchrun --nproc-per-node 8", "GiB", str(tmp_path)):
        assert needed in words
