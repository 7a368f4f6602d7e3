"""The worked example of docs/new_task.md is run as it stands there."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from svilm.cli import app
from svilm.data.world import read_truth

PAGE = Path(__file__).parents[1] / "docs" / "new_task.md"
TINY = (
    "--set training.steps=2 --set data.batch=8 --set data.workers=0 --set model.video.width=16 "
    "--set model.video.depth=1 --set model.video.heads=2 --set model.video.group_after=[1] "
    "--set model.text.width=16 --set model.text.depth=1 --set model.text.heads=2 --set model.common=8"
)


@pytest.fixture
def place(tmp_path, world, monkeypatch):
    """A folder with the two files of the page and the data that it speaks of."""
    files = re.findall(r"`(counting/\w+\.py)`\n.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert [name for name, _ in files] == ["counting/read.py", "counting/task.py"]
    for name, code in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    rows = [(record.id, min(len(record.things), 6), record.split) for record in read_truth(world)]
    with open(tmp_path / "counts.csv", "w", newline="") as file:
        csv.writer(file).writerows([("video", "count", "split"), *rows])
    (tmp_path / "videos").symlink_to(world / "videos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "counting"]:
        del sys.modules[name]


def test_the_commands_of_the_page_run(place):
    shown = re.findall(r"^svilm (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(shown) == 4
    for command in shown:
        command = command.replace("--set start.model=runs/demo", TINY)
        app(shlex.split(command), standalone_mode=False)
    scores = json.loads((place / "runs" / "counting" / "scores.json").read_text())
    assert set(scores) == {
        "counting/accuracy", "counting_majority/accuracy", "counting/scored", "counting/official",
    }  # fmt: skip
    assert (place / "runs" / "counting" / "model" / "task.safetensors").is_file()
    assert (place / "runs" / "counting" / "first_batch.png").is_file()
