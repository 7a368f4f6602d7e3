"""`svilm index` and `svilm search`, as typed."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from svilm.cli import app
from tiny_models import own_model

sys.path.append(str(Path(__file__).parents[1] / "data"))
from make_videos import write_video


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    own_model().save_pretrained(place / "model")
    (place / "videos" / "sub").mkdir(parents=True)
    write_video(place / "videos" / "a.mp4", 24, rate=8)
    write_video(place / "videos" / "sub" / "b.mp4", 16, rate=8)
    (place / "videos" / "c.mp4").write_text("no video")
    made = run("index", place / "videos", "--model", place / "model", "--to", place / "index", "--windows", "1")
    assert made.exit_code == 0, made.output
    assert "1 x not_a_video: c.mp4" in made.output and "svilm search" in made.output
    return place


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_hits_are_printed(place):
    found = run("search", place / "index", "a red circle", "-k", "3", "--nouns")
    lines = found.stdout.splitlines()
    assert len(lines) == 5 and lines[0].split() == ["score", "start", "end", "video"]
    assert lines[1].split()[0] == "1" and lines[-1] == "nouns: red circle"
    nothing = run("search", place / "index", "a red circle", "--folder", "nowhere")
    assert nothing.stdout == "no moment below folder 'nowhere' is admitted; the folders of the index: sub\n"
    nothing = run("search", place / "index", "a red circle", "--shortest", "60")
    assert nothing.stdout == "no moment of the index is admitted; loosen --folder, --shortest or --longest\n"


def test_a_store_that_is_not_there_is_told_before_any_video_is_read(place, tmp_path):
    made = run("index", place / "videos", "--model", "not/looked-for", "--to", tmp_path / "new", "--store", "foo")
    assert made.exit_code != 0 and "store 'foo': choose exact, lancedb" in str(made.exception or made.output)
    assert not (tmp_path / "new").exists()


def test_lengths_that_contradict_each_other_are_named_as_typed(place, tmp_path):
    made = run("index", place / "videos", "--model", place / "model", "--to", tmp_path / "new", "--longest", "3")
    assert str(made.exception) == "--longest 3: must be at least twice --shortest (2 s)"


def test_json_and_filters_and_examples(place):
    found = json.loads(run("search", place / "index", "a red circle", "--json", "--folder", "sub").stdout)
    assert found["query"] == "a red circle" and {hit["video"] for hit in found["hits"]} == {"sub/b.mp4"}
    like = run("search", place / "index", "--clip", f"{place / 'videos' / 'a.mp4'}@1-2.0", "--json", "-k", 1)
    hit = json.loads(like.stdout)["hits"][0]
    assert (hit["video"], hit["start"], hit["end"], hit["rank"]) == ("a.mp4", 1.0, 2.0, 1)
    whole = run("search", place / "index", "--clip", place / "videos" / "a.mp4", "--json", "--longest", "0.5")
    assert json.loads(whole.stdout)["hits"] == []


def test_a_sheet_is_written(place, tmp_path):
    found = run("search", place / "index", "a red circle", "-k", "2", "--nouns", "--sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[1:4] == b"PNG" and "sheet.png" in found.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give one of: a query in words, --image, --clip"),
        (("x", "--image", "y.png"), "give one of"),
        (("--image", "y.png", "--nouns"), "are those of a query in words"),
        (("x" * 1001,), "at most 1000"),
        (("x", "--folder", "../y"), "below the index's root"),
        (("x", "--shortest", "3", "--longest", "2"), "shortest must be"),
        (("--clip", "a.mp4@9-3"), "a.mp4: the part from 9 to 3 s is empty"),
        (("--clip", "a.mp4@x"), "--clip 'a.mp4@x': no such file; for a part of a video give FILE@START-END"),
        (("x", "--sheet", "sheet.txt"), "sheet.txt shall be a picture; give a name that ends in .png"),
        (("x", "--sheet", "nowhere/sheet.png"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_explained(place, words, message):
    found = run("search", place / "index", *words)
    assert found.exit_code == 1 and message in str(found.exception)
