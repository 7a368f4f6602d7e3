"""`svilm prepare` from the command line: it explains itself, prints the account, and fails in one line."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from svilm.cli.prepare import app
from svilm.data.manifest import Manifest

COMMANDS = ["videocc", "webvid", "howto100m", "activitynet-captions", "msrvtt", "folder"]


def run(*arguments: str | Path) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.exception


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, text, _ = run(command, "--help")
    assert code == 0
    assert all(option in text for option in ["--to", "--videos", "--check", "--workers", "--nouns"])
    assert command in run("--help")[1]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of one video and a table that also names another one."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        for _ in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["video", "start", "end", "caption"],
                ["a.mp4", 0, 1, "a dog runs"],
                ["b.mp4", 0, 1, "a cat sleeps"],
            ]
        )
    return tmp_path


def test_folder(clips: Path) -> None:
    code, text, _ = run("folder", clips / "clips.csv", "--to", clips / "m.jsonl", "--workers", 0, "--nouns", "rules")
    assert code == 0
    assert "1 x video not found: line 3 (b.mp4)" in text
    (entry,) = Manifest(clips / "m.jsonl")
    assert (entry.id, entry.nouns) == ("a.mp4:0.000-1.000", (("dog",),))


def test_a_test_split_fails_and_says_how_to_go_on(clips: Path) -> None:
    command = ["folder", clips / "clips.csv", "--to", clips / "m.jsonl", "--workers", 0, "--split", "test"]
    code, _, error = run(*command)
    assert code != 0 and "line 3 (b.mp4): video not found" in str(error)
    assert isinstance(error, ValueError)
    assert run(*command, "--allow-missing")[0] == 0
    assert Manifest(clips / "m.jsonl").header.struck == ("b.mp4:0.000-1.000: video not found",)


def test_a_folder_without_a_table(clips: Path) -> None:
    (clips / "a.txt").write_text("a dog\n")
    code, text, _ = run("folder", clips, "--to", clips / "m.jsonl", "--workers", 0)
    assert code == 0 and "1 captions" in text


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys\nfrom svilm.cli.prepare import app\n"
        "try: app(['folder', '--help'])\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'av', 'spacy', 'textblob', 'nltk', 'lemminflect')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
