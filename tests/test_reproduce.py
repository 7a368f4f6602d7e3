"""The tables of the paper: complete, and printed from whatever has been run."""

import json
import shutil

import pytest

from svilm.config import ConfigError, override
from svilm.data.prepare.common import PrepareError
from svilm.recipes import RECIPES, recipe
from svilm.reproduce.harness import Workshop, render, render_settings
from svilm.reproduce.sources import REAL, WORLD, manifest_of
from svilm.reproduce.steps import STEPS
from svilm.reproduce.tables import TABLES, Settings, Table

RESULTS = {name: table for name, table in TABLES.items() if isinstance(table, Table)}
SETTINGS = {name: table for name, table in TABLES.items() if isinstance(table, Settings)}


def test_every_table_of_the_paper_is_there():
    assert {int(name.removeprefix("table")) for name in TABLES} == set(range(1, 14)) - {7}  # 7: the templates


@pytest.mark.parametrize("name", RESULTS)
def test_rows_have_a_cell_for_each_column_and_steps_that_exist(name):
    table = RESULTS[name]
    for row in table.rows:
        assert len(row.paper) == len(table.columns), row.method
        assert len(row.ours) in (0, len(table.columns)), row.method
        assert all(step.recipe in RECIPES and step.tiny in RECIPES for step in row.steps)
    assert any(row.ours for row in table.rows)


def test_steps_find_their_data_and_their_start():
    for step in STEPS.values():
        assert not step.start or not STEPS[step.start].start
        for sources in (REAL, WORLD):
            assert step.train in sources and step.test in sources, step.name


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_the_papers_or_marked(name):
    text = render_settings(SETTINGS[name])
    marked = [line for line in text.splitlines() if "(differs)" in line]
    assert len(marked) == (1 if name == "table9" else 0)  # the rate of MSVD-QA, see the note


def test_the_paper_has_its_numbers_right_where_tables_agree():
    """Rows that the paper prints twice."""
    one = next(row.paper for row in RESULTS["table4"].rows if row.ours)
    other = next(row.paper for row in RESULTS["table5"].rows if row.method == "S-ViLM, HowTo100M")
    assert one == other[3:]
    videocc = next(row.paper for row in RESULTS["table5"].rows if row.method == "S-ViLM, VideoCC")
    everything = RESULTS["table6"].rows[-1].paper
    assert videocc == everything[:3] + everything[5:]


def finish(place, scores, name="paper", *settings):
    """A run folder that looks finished."""
    place.mkdir(parents=True)
    (place / "scores.json").write_text(json.dumps(scores))
    (place / "run.json").write_text(override(recipe(name), list(settings)).model_dump_json())
    about = {"protocol": "a protocol", "scored": 9, "official": 10}
    (place / "protocols.json").write_text(json.dumps({"retrieval": about}))


def test_rows_that_cannot_run_say_what_is_missing(tmp_path):
    workshop = Workshop(tmp_path / "runs", tmp_path / "data")
    text = render(RESULTS["table1"], workshop)
    assert "| S-ViLM, zero-shot (paper)      | 28.6 | 53.6 | 65.1 | 5.0  |" in text
    ours = next(line for line in text.splitlines() if line.startswith("| **S-ViLM, zero-shot (ours)**"))
    assert ours.split("|")[2:6] == [" -    "] * 4
    assert "- pretrain: not run;" in text and "video_cc_public.csv: no such file" in text
    assert not (tmp_path / "runs" / "pretrain").exists()


def test_finished_runs_are_read_and_say_how_they_were_scored(tmp_path):
    metrics = {"R@1": 1.25, "R@5": 5.0, "R@10": 10.0, "median_rank": 44.0}
    finish(tmp_path / "pretrain", {f"retrieval/text_to_video/{name}": value for name, value in metrics.items()})
    text = render(RESULTS["table1"], Workshop(tmp_path, tmp_path / "data", only=lambda step: False))
    ours = next(line for line in text.splitlines() if line.startswith("| **S-ViLM, zero-shot (ours)**"))
    assert [cell.strip() for cell in ours.split("|")[2:6]] == ["1.2", "5.0", "10.0", "44.0"]
    assert "- pretrain: recipe paper, seed 0, 32 frames; retrieval: 9 of 10, a protocol" in text
    assert "- msrvtt: not run;" in text


def test_a_finished_run_that_is_another_is_no_answer(tmp_path):
    step = STEPS["msrvtt-qa"]
    finish(tmp_path / step.name, {"vqa/accuracy": 40.0}, step.recipe, "start.model=/models/a", "seed=3")
    given = {"start": "/models/a", "settings": ["seed=3"]}
    for same in ({}, {"start": "/models/../models/a"}, {"settings": ["seed=3", "data.workers=7", "device=cpu"]}):
        assert Workshop(tmp_path, tmp_path, **{**given, **same}).scores(step) == {"vqa/accuracy": 40.0}
    for changed, said in (
        ({"start": "/models/b"}, r"start\.model: '/models/a' there, '/models/b' now"),
        ({"start": ""}, r"start\.model: '/models/a' there, '.*pretrain' now"),
        ({"settings": ["seed=3", "optim.lr=5.0"]}, r"optim\.lr: .* there, 5\.0 now"),
        ({"settings": ["seed=3", "model.video.groups=7"]}, r"model\.video\.groups: .* there, 7 now"),
        ({"settings": []}, "seed: 3 there, 0 now"),
        ({"world": True}, rf"recipe: '{step.recipe}' there, '{step.tiny}' now"),
    ):
        with pytest.raises(ConfigError, match=f"holds a finished run with other settings .*{said}"):
            Workshop(tmp_path, tmp_path, **{**given, **changed}).scores(step)


def test_a_score_that_a_finished_run_lacks_is_a_dash(tmp_path):
    finish(tmp_path / "pretrain", {"retrieval/text_to_video/R@1": 1.0})
    text = render(RESULTS["table1"], Workshop(tmp_path, tmp_path, only=lambda step: False))
    ours = next(line for line in text.splitlines() if line.startswith("| **S-ViLM, zero-shot (ours)**"))
    assert [cell.strip() for cell in ours.split("|")[2:6]] == ["1.0", "-", "-", "-"]
    assert "- pretrain: its scores have no retrieval/text_to_video/R@5" in text


def test_manifests_of_other_data_are_not_taken_for_these(world, tmp_path):
    path = manifest_of("msrvtt-test", WORLD, world, tmp_path / "data")
    assert manifest_of("msrvtt-test", WORLD, world, tmp_path / "data") == path
    linked = tmp_path / "linked"  # with its videos on another disk
    shutil.copytree(world / "msrvtt", linked / "msrvtt")
    (linked / "world.json").write_bytes((world / "world.json").read_bytes())
    (linked / "videos").symlink_to(world / "videos")
    for _ in range(2):
        assert manifest_of("msrvtt-test", WORLD, linked, tmp_path / "again").is_file()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(PrepareError, match=r"is of the videos in .*, not of those in .*other; choose another --to"):
        manifest_of("msrvtt-test", WORLD, other, tmp_path / "data")


def test_on_the_drawn_world_equal_steps_share_a_run(tmp_path):
    workshop = Workshop(tmp_path, tmp_path, world=True)
    assert workshop.place(STEPS["pretrain-all"]) == workshop.place(STEPS["pretrain"]) == tmp_path / "pretrain"
    assert workshop.place(STEPS["msvd-qa"]) == workshop.place(STEPS["msrvtt-qa"])
    assert workshop.place(STEPS["ucf101-contrastive"]) != workshop.place(STEPS["ucf101"])
    assert Workshop(tmp_path, tmp_path).place(STEPS["hmdb51"]) == tmp_path / "hmdb51"


def test_a_setting_that_no_run_could_take_is_refused_at_once(tmp_path):
    for world in (False, True):
        with pytest.raises(ConfigError, match=r"did you mean 'optim\.lr'"):
            Workshop(tmp_path, tmp_path, world=world, settings=["optim.lr=1", "optim.lrr=3"])
        Workshop(tmp_path, tmp_path, world=world, settings=["task.grounding=0.5"])  # some runs have it


def test_a_step_is_a_run_on_its_data_from_its_start(world, tmp_path):
    workshop = Workshop(tmp_path, world, world=True, start="runs/some", settings=["training.steps=3"])
    run = workshop.run_of(STEPS["msrvtt"])
    assert (run.recipe, run.start.model, run.training.steps) == ("tiny-retrieval", "runs/some", 3)
    assert run.data.manifest == str(tmp_path / "data" / "msrvtt-train.jsonl")
    assert run.retrieval.manifest == str(tmp_path / "data" / "msrvtt-test.jsonl")
    assert workshop.run_of(STEPS["msrvtt-qa"]).task.test == str(tmp_path / "data" / "msrvtt-qa-test.jsonl")


@pytest.mark.parametrize("name", sorted({name for step in STEPS.values() for name in (step.train, step.test)}))
def test_the_drawn_world_has_every_data_set(name, world, tmp_path):
    assert manifest_of(name, WORLD, world, tmp_path).is_file()


def test_a_failed_step_is_not_tried_again(tmp_path):
    workshop = Workshop(tmp_path / "runs", tmp_path / "data")
    for _ in range(2):
        with pytest.raises((PrepareError, ConfigError), match="no such file"):
            workshop.scores(STEPS["pretrain"])
