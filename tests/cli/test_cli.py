"""The command line as a user meets it: help, mistakes, and the way from a folder of videos to a report."""

import json
import re
import subprocess
import sys

import pytest

from svilm import cli

COMMANDS = [
    "world", "prepare", "look", "show", "train", "evaluate", "report", "doctor", "demo", "score", "reproduce",
    "downstream", "hold-out", "scan", "features", "localize", "index", "search",
]  # fmt: skip


def call(*words, timeout=240):
    """Run `svilm` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "svilm", *map(str, words)], capture_output=True, text=True, timeout=timeout
    )
    return done.returncode, done.stdout, done.stderr


def test_help_names_every_command_and_each_explains_itself():
    code, out, _ = call("--help")
    assert code == 0 and all(f" {name} " in out for name in COMMANDS)
    for name in COMMANDS:
        code, out, _ = call(name, "--help")
        assert code == 0 and "Usage" in out and len(out) > 200, name


def test_help_imports_nothing_heavy():
    program = (
        "import sys, svilm.cli\n"
        "heavy = {'torch', 'numpy', 'transformers', 'av', 'matplotlib', 'textblob', 'nltk', 'lemminflect', 'spacy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "papr"], "did you mean 'paper'?"),
        (["train", "tiny", "--data", "nowhere.jsonl"], "nowhere.jsonl: no such manifest"),
        (["train", "tiny", "--set", "optim.lrr=1"], "did you mean 'optim.lr'?"),
        (["train", "tiny", "--set", "optim.lr=fast"], "optim.lr = 'fast'"),
        (["train", "tiny"], "data.manifest is empty"),
        (["evaluate", "nowhere"], "no run.json"),
        (["report", "nowhere"], "nowhere"),
        (["scan", "nowhere", "--out", "rows.jsonl"], "nowhere: no such folder of videos, and no such manifest"),
        (["downstream", "nowhere", "--world", "world"], "'nowhere'"),
        (["downstream", "nowhere", "--world", "world", "--set", "optim.lrr=3"], "did you mean 'optim.lr'?"),
        (["reproduce", "table6", "--world", "--set", "optim.lrr=3"], "did you mean 'optim.lr'?"),
    ],
)
def test_mistakes_end_in_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*words)
    assert code == 1
    assert said in error and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert not any(tmp_path.rglob("*.mp4"))  # no world was drawn before


def test_version_and_show():
    assert call("--version")[1].startswith("svilm ")
    code, out, _ = call("show")
    assert code == 0 and "paper" in out and "Table 6" in out
    code, out, _ = call("show", "tiny", "--set", "optim.lr=0.5", "--json")
    assert code == 0 and json.loads(out)["optim"]["lr"] == 0.5
    assert "Peak learning rate" in call("show", "tiny")[1]


def test_dry_run_needs_no_data():
    code, out, error = call("train", "paper", "--dry-run")
    assert code == 0, error
    assert "3136" in out and "torchrun" in out


def test_from_a_folder_of_videos_to_a_report(world, tmp_path):
    """Own videos with a table of captions: prepare, look, train, stop and go on, evaluate, report."""
    train, scenes = tmp_path / "train.jsonl", tmp_path / "scenes.jsonl"
    code, out, error = call(
        "prepare", "videocc", world / "videocc" / "video_cc_public.csv", "--videos", world, "--to", train
    )
    assert code == 0 and "written" in out, error
    code, _, error = call(
        "prepare", "folder", world / "scenes.csv", "--videos", world / "videos", "--split", "test", "--to", scenes
    )
    assert code == 0, error
    code, _, error = call("look", train, "--to", tmp_path / "look.txt")
    assert code == 1 and "look.txt shall be a picture" in error
    code, _, error = call("look", train, "--to", tmp_path / "look.png")
    assert code == 0 and (tmp_path / "look.png").stat().st_size > 10_000, error
    small = ["training.steps=2", "data.batch=8", "data.workers=1", "model.video.width=32", "model.text.width=32"]
    sets = [word for setting in small for word in ("--set", setting)]
    run = tmp_path / "run"
    code, out, error = call("train", "tiny", "--data", train, "--test", scenes, "--scenes", scenes, "--to", run, *sets)
    assert code == 0 and "retrieval/text_to_video/R@10" in out and f"svilm report {run} draws" in out, error
    code, again, error = call("train", "tiny", "--resume", "--to", run)
    assert code == 0 and again == out, error
    for words in (("--set", "optim.lr=5"), ("--test", scenes)):
        code, _, error = call("train", "tiny", "--resume", "--to", run, *words)
        assert code == 1 and "--resume goes on with the settings and lists of" in error
    code, _, error = call("evaluate", run, "--set", "retrieval.dual_softmax=0.05")
    assert code == 0, error
    assert "retrieval_transductive/text_to_video/R@1" in json.loads((run / "scores.json").read_text())
    cuts = tmp_path / "cuts.jsonl"
    code, _, error = call("prepare", "folder", world / "jump_cuts.csv", "--videos", world / "jump_cuts", "--to", cuts)
    assert code == 0, error
    code, out, error = call("evaluate", "temporal", run, "--jump-cuts", cuts)
    assert code == 0 and "temporal_cuts_untrained/told_apart" in out and "temporal/gap" in out, error
    code, out, error = call("report", run)
    assert code == 0, error
    page = (run / "report.html").read_text()
    assert "data:image" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_several_settings_behind_one_set():
    words = ["train", "tiny", "--set", "a.b=1", "c=2", "d.e=x", "--to", "x=y", "--set", "f=1"]
    wanted = ["train", "tiny", "--set", "a.b=1", "--set", "c=2", "--set", "d.e=x", "--to", "x=y", "--set", "f=1"]
    assert cli._each_set(words) == wanted == cli._each_set(wanted)
    code, out, _ = call("show", "tiny", "--json", "--set", "optim.lr=0.5", "seed=7")
    assert code == 0 and (json.loads(out)["optim"]["lr"], json.loads(out)["seed"]) == (0.5, 7)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: (place / "file" / "x").open("w"), r"file/x: a file stands where a folder is needed; choose"),
        (lambda place: (place / "file").mkdir(), r"file: is there already, and no folder; choose another place"),
        (lambda place: (place / "none").open(), r"none: no such file or folder"),
        (lambda place: place.open(), r": is a folder; give a file"),
    ],
)
def test_what_the_system_says_of_a_file_comes_with_a_remedy(make, said, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        make(tmp_path)
    assert re.search(said, cli._words_of(caught.value)) and "Errno" not in cli._words_of(caught.value)


def test_an_interruption_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["svilm", "version"])
    for raised in (SystemExit(130), KeyboardInterrupt()):
        monkeypatch.setattr(cli, "app", lambda raised=raised: (_ for _ in ()).throw(raised))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 130 and capsys.readouterr().err == "svilm: interrupted\n"
