"""`svilm claims`: result files, and the page that is made of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from svilm.cli import app
from svilm.config import ConfigError
from svilm.draw import SEGMENT_COLOURS
from svilm.recipes import RECIPES
from svilm.reproduce import claims, claims_page
from svilm.reproduce.claims import DOWNSTREAM, SCENARIOS, Plan, pretraining, run_claims
from svilm.reproduce.claims_page import BEGIN, END, draw_curves, read_results, tables, write_page
from svilm.reproduce.steps import STEPS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "claims.md"


def result(scenario, seed, recall, **scores):
    return {
        "scenario": scenario, "recipe": "tiny", "seed": seed, "settings": [], "steps": 9, "batch": 4,
        "world": {"clips": 1000, "test_clips": 50, "seed": 0},
        "environment": {
            "command": "svilm claims", "date": "2026-01-02 03:04:05", "svilm": "1", "commit": "abc", "torch": "2",
            "python": "3", "system": "s", "cpus": 2, "gpus": [],
        },
        "scores": {"retrieval/text_to_video/R@10": recall, **scores},
        "curves": {"loss/contrast": {"steps": [1.0, 2.0], "values": [2.0 + seed, 1.0]}},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for scenario, seed, recall in (("all", 0, 10.0), ("all", 1, 14.0), ("contrastive", 0, 9.0)):
        extra = {"retrieval_chance/text_to_video/R@10": 2.0}
        (tmp_path / f"{scenario}-seed{seed}.json").write_text(json.dumps(result(scenario, seed, recall, **extra)))
    return tmp_path


def test_the_committed_page_says_what_the_committed_files_say():
    text = PAGE.read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    assert between.strip() == tables(read_results(DOCS / "claims")).strip()


def test_committed_files_say_where_they_come_from():
    for each in read_results(DOCS / "claims"):
        assert each["scenario"] in SCENARIOS and isinstance(each["seed"], int)
        assert each["environment"].keys() >= {"command", "date", "commit", "cpus", "torch", "python", "system"}
        assert all(0 <= value <= 100 or "rank" in name or "/" in name for name, value in each["scores"].items())


def test_cells_are_mean_and_deviation_over_seeds(folder):
    text = tables(read_results(folder))
    row = next(line for line in text.splitlines() if SCENARIOS["all"][1] in line)
    assert f"{SCENARIOS['all'][1]} (2)" in row and "12.0 ± 2.8" in row
    assert text.index("contrastive (1)") < text.index(SCENARIOS["all"][1])  # the order of Table 6
    assert "*chance*" in text and "contrastive 0, all 0, all 1: 9 steps of 4 clips" in text
    assert "Grounding" not in text  # nothing measured, no table


def test_a_cell_of_fewer_seeds_says_so_and_scoring_later_is_told(folder):
    carried = {"msrvtt-qa": {"commit": "fed"}, "activitynet": {"commit": "abc"}}
    later = {**result("all", 1, 14.0, **{"vqa/accuracy": 30.0}), "scored": {"commit": "def"}, "downstream": carried}
    (folder / "all-seed1.json").write_text(json.dumps(later))
    text = tables(read_results(folder))
    assert "30.0 (1)" in text and "12.0 ± 2.8 |" in text and "at abc (scored at def, downstream at fed)" in text
    chance = next(line for line in text.splitlines() if "*chance*" in line)
    assert "2.0 " in chance and "±" not in chance  # the same for all seeds


def test_a_result_without_the_scores_of_a_table_is_left_out_of_it(folder):
    """Jump cuts came later than the first result files."""
    title = "### Jump cuts: the place stays, the things change"
    assert title not in tables(read_results(folder))
    extra = {"temporal_cuts/told_apart": 90.0, "temporal_cuts_untrained/told_apart": 80.0}
    (folder / "all-seed1.json").write_text(json.dumps(result("all", 1, 14.0, **extra)))
    text = tables(read_results(folder))
    table = text.partition(title)[2].partition("In brackets")[0]
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]] == [
        [f"{SCENARIOS['all'][1]} (1)", "90.0"],
        ["*untrained*", "80.0"],
    ]
    assert f"{SCENARIOS['all'][1]} (2)" in text and "contrastive (1)" in text  # in the table of retrieval


def test_the_page_keeps_what_is_written_by_hand(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, folder)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text and "12.0 ± 2.8" in text
    write_page(page, folder)
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="no place for the tables"):
        write_page(page, folder)


def test_where_there_is_no_page_one_is_made(folder, tmp_path):
    given = ["claims", "--only-page", "--to", str(tmp_path / "to"), "--results", str(folder)]
    assert CliRunner().invoke(app, given).exit_code == 0
    text = (tmp_path / "to" / "claims.md").read_text()
    assert text.startswith("# Do the paper's claims hold?") and "12.0 ± 2.8" in text
    write_page(tmp_path / "to" / "claims.md", folder)
    assert (tmp_path / "to" / "claims.md").read_text() == text


def test_curves_are_pictures(folder):
    (file,) = draw_curves(read_results(folder), folder)
    assert file.name == "loss-contrast.svg" and file.read_text().startswith("<svg ")


def test_every_design_has_a_line_and_its_own_colour(folder):
    for scenario in SCENARIOS:
        (folder / f"{scenario}-seed0.json").write_text(json.dumps(result(scenario, 0, 1.0)))
    (file,) = draw_curves(read_results(folder), folder)
    assert all(file.read_text().count(colour) >= 2 for colour in SEGMENT_COLOURS[: len(SCENARIOS)])  # line and legend


def test_no_results(tmp_path):
    with pytest.raises(ConfigError, match="no result files"):
        read_results(tmp_path)


def test_every_scenario_is_a_recipe_and_every_task_a_step():
    assert all(recipe in RECIPES for recipe, _ in SCENARIOS.values())
    assert all(name in STEPS for name in DOWNSTREAM)
    assert all(name in DOWNSTREAM for name in claims.SHORTER)
    assert set(claims_page.BASELINES) >= {"untrained", "chance", "contrast"}


def test_what_is_there_is_not_run_again(folder, monkeypatch, tmp_path):
    ran = []

    def run(plan, scenario, seed):
        ran.append((scenario, seed))
        return result(scenario, seed, 1.0)

    monkeypatch.setattr(claims, "result_of", run)
    plan = Plan(tmp_path / "runs", tmp_path, folder, seeds=2, scenarios=("contrastive", "all"), downstream=False)
    assert len(run_claims(plan)) == 4 and ran == [("contrastive", 1)]
    ran.clear()
    (folder / "all-seed0.json").write_text(json.dumps(result("all", 0, 1.0, **dict.fromkeys(DOWNSTREAM.values(), 5.0))))
    run_claims(replace(plan, downstream=True))  # what was not carried downstream is taken up again
    assert ran == [("contrastive", 0), ("contrastive", 1), ("all", 1)]
    with pytest.raises(ConfigError, match=r"made with the settings \(none\), asked for training.steps=9"):
        run_claims(replace(plan, settings=["training.steps=9"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenario", "nonsense"], "no scenario nonsense; there are contrastive"),
        (["--set", "training.stebs=3"], "training.stebs"),
    ],
)
def test_a_mistake_is_told_before_a_world_is_drawn(tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(app, ["claims", "--to", str(tmp_path / "to"), *words], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_scenario_is_measured_in_every_way(world, tmp_path):
    plan = Plan(tmp_path, world, tmp_path / "results", settings=["training.steps=2"])
    run = pretraining(plan, "grounding", 1)
    assert (run.recipe, run.seed, run.training.steps) == ("tiny-grounding", 1, 2)
    for part in (run.retrieval, run.temporal, run.grounding):
        assert Path(part.manifest).is_file()
    assert Path(run.temporal.jump_cuts).is_file()


SMALL = (
    "training.steps=3", "training.log_every=1", "data.batch=8", "data.workers=0", "model.video.width=32",
    "model.video.depth=2", "model.video.heads=2", "model.video.group_after=[1,2]", "model.text.width=32",
    "model.text.depth=1", "model.text.heads=2", "model.common=16",
)  # fmt: skip


def test_a_small_one_from_end_to_end(world, tmp_path):
    plan = Plan(tmp_path / "runs", world, tmp_path / "results", 1, ("all",), settings=SMALL, downstream=False)
    (file,) = run_claims(plan)
    text = tables(read_results(plan.results))
    assert file.name == "all-seed0.json" and "with a distractor" in text and "boundary F1" in text
    found = json.loads(file.read_text())
    assert found["scores"].keys() >= {"grounding/pointing", "temporal/gap", "grounding_contrast/pointing"}
    assert found["scores"].keys() >= {"temporal_cuts/gap", "temporal_cuts_untrained/told_apart"}
    assert "Jump cuts" in text
    assert found["curves"]["loss/contrast"]["steps"] == [1.0, 2.0, 3.0]
