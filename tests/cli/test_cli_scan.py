"""`svilm scan` as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from svilm.cli.train import configured
from svilm.data.manifest import Entry, Header, Manifest, write_manifest


def call(*words: object) -> tuple[int, str, str]:
    """Run `svilm` in a process of its own."""
    command = [sys.executable, "-m", "svilm", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def videos(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos, one cut short."""
    folder = tmp_path_factory.mktemp("videos")
    good = next(world.rglob("*.mp4")).read_bytes()
    (folder / "good.mp4").write_bytes(good)
    (folder / "bad.mp4").write_bytes(good[: len(good) // 2])
    return folder


def test_scan_of_a_folder_then_verify(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    code, said, _ = call("scan", videos, "--out", out, "--workers", 1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 0 and [(row["path"], row["ok"]) for row in rows] == [("bad.mp4", False), ("good.mp4", True)]
    assert "bad.mp4" in said and "2  judged, 0 of them known" in said
    assert call("scan", videos, "--out", out, "--verify")[:2] == (
        0,
        f"0 videos are not as they were when {out} was written\n",
    )
    (videos / "good.mp4").write_bytes((videos / "good.mp4").read_bytes()[:-1])
    code, said, _ = call("scan", videos, "--out", out, "--verify")
    assert code == 1 and said.startswith("good.mp4 has ") and "\n1 videos are not" in said
    (videos / "good.mp4").write_bytes((videos / "good.mp4").read_bytes() + b"\0")


def test_scan_of_a_manifest(videos: Path, tmp_path: Path) -> None:
    entries = [Entry(name, f"{name}.mp4", ("words",), ((),)) for name in ("good", "bad")]
    for split in ("train", "test"):
        write_manifest(tmp_path / f"{split}.jsonl", Header("test", str(videos), 2, split=split), entries)
    code, said, _ = call("scan", tmp_path / "train.jsonl", "--out", tmp_path / "rows.jsonl")
    assert code == 0 and "1  of 2 in" in said and said.rstrip().endswith("1 x damaged")
    assert [entry.id for entry in Manifest(tmp_path / "train-verified.jsonl")] == ["good"]
    code, _, error = call("scan", tmp_path / "test.jsonl", "--out", tmp_path / "rows.jsonl")
    assert code == 1 and "--allow-missing" in error and "Traceback" not in error
    assert call("scan", tmp_path / "test.jsonl", "--out", tmp_path / "rows.jsonl", "--allow-missing")[0] == 0
    assert Manifest(tmp_path / "test-verified.jsonl").header.struck == ("bad: damaged",)
    code, _, error = call("scan", tmp_path / "train.jsonl", "--out", tmp_path / "train.jsonl")
    assert code == 1 and "is not a row of a scan" in error


def test_scan_of_a_video_says_what_to_give_instead(videos: Path, tmp_path: Path) -> None:
    code, _, error = call("scan", videos / "good.mp4", "--out", tmp_path / "rows.jsonl")
    assert code == 1
    assert error == f"svilm: {videos / 'good.mp4'} is a video; give its folder, or a manifest that names it\n"


def test_runs_take_what_a_scan_has_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "train-verified", "test"):
        write_manifest(tmp_path / f"{name}.jsonl", Header("test", ".", 1), [Entry("a", "a.mp4", ("words",), ((),))])
    run = configured("tiny", None, tmp_path / "train.jsonl", tmp_path / "test.jsonl", None)
    assert run.data.manifest == str(tmp_path / "train-verified.jsonl")
    assert run.retrieval.manifest == str(tmp_path / "test.jsonl")
    assert "data.manifest: " in capsys.readouterr().err
    os.utime(tmp_path / "train-verified.jsonl", (1, 1))
    run = configured("tiny", [f"data.manifest={tmp_path / 'train.jsonl'}"], None, None, None)
    assert run.data.manifest == str(tmp_path / "train.jsonl")
    assert "is older than" in capsys.readouterr().err
