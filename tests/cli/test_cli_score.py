"""`svilm score` from the command line: tables, protocol lines, files in the official layout, one-line refusals."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from svilm.cli.score import app

COMMANDS = ["activitynet", "ava", "retrieval", "vqa", "classification"]


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.exception


def _write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, text, _ = run(command, "--help")
    assert code == 0 and "--json" in text and command in run("--help")[1]


@pytest.mark.parametrize(
    ("command", "form"),
    [
        ("retrieval", "similarity [queries, items]; positives [queries], or [queries, most] filled up with -1."),
        ("classification", "npz of ids, scores [clips, classes], classes; or csv with the header id,CLASS,..."),
        ("activitynet", '{"results": {id: [{segment, label, score}]}}.'),
    ],
)
def test_help_shows_brackets_of_file_formats(command, form, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert form in run(command, "--help")[1]


@pytest.fixture
def segments(tmp_path):
    """Ground truth of two validation videos, and predictions of which the last has an unknown label."""
    truth = {"subset": "validation", "duration": 20.0, "annotations": [{"segment": [0, 10], "label": "run"}]}
    other = {"subset": "validation", "duration": 20.0, "annotations": [{"segment": [5, 15], "label": "jump"}]}
    database = {"a": truth, "b": other, "c": {**truth, "subset": "training"}}
    gt = _write(tmp_path / "gt.json", {"database": database, "taxonomy": [], "version": "1.3"})
    rows = [
        {"segment": [20, 30], "label": "run", "score": 0.9},
        {"segment": [0, 8], "label": "run", "score": 0.5},
        {"segment": [0, 8], "label": "swim", "score": 0.5},
    ]
    results = {"version": "1.3", "external_data": {}, "results": {"a": rows}}
    return gt, _write(tmp_path / "pred.json", results)


def test_activitynet(segments, tmp_path):
    out = tmp_path / "new" / "out.json"
    words = ["activitynet", *segments, "--unknown-labels", "ignore", "--json", out]
    code, text, error = run(*words)
    assert code == 0, error
    written = json.loads(out.read_text())
    assert written["ap"] == {"jump": [0.0] * 10, "run": [0.5] * 7 + [0.0] * 3}
    assert written["mAP"] == [0.25] * 7 + [0.0] * 3 and written["average_mAP"] == pytest.approx(0.175)
    assert written["tiou"] == np.linspace(0.5, 0.95, 10).tolist()
    assert (written["num_gt"], written["num_pred"], written["scored"], written["official"]) == (2, 2, 2, 2)
    assert "scored 2/2; validation subset: ActivityNet detection mAP" in text and "later entry first" in text
    assert written["protocol"] in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("run")]
    assert row == ["run", "1", *["50.00"] * 7, *["0.00"] * 3, "35.00"]
    blocked = _write(tmp_path / "blocked.txt", "b\n")
    code, text, _ = run(*words, "--blocked", blocked)
    assert code == 0 and "scored 1/2" in text and list(json.loads(out.read_text())["ap"]) == ["run"]
    assert "choose the subset that was predicted" in str(run(*words, "--subset", "training")[2])
    none = _write(tmp_path / "none.json", {"results": {"c": []}})
    code, text, _ = run("activitynet", segments[0], none, "--subset", "training")
    assert code == 0 and "scored 1/1; training subset" in text


def test_activitynet_refuses_its_traps(segments, tmp_path):
    gt, predictions = segments
    assert "labels without ground truth in the scored videos: 'swim'" in str(run("activitynet", gt, predictions)[2])
    assert "no ground truth in subset 'testing'" in str(run("activitynet", gt, predictions, "--subset", "testing")[2])
    results = {"a": [{"segment": [10, 0], "label": "run", "score": 1}]}
    mirrored = _write(tmp_path / "mirrored.json", {"results": results})
    assert "does not end after it starts" in str(run("activitynet", gt, mirrored)[2])
    code, text, _ = run("activitynet", gt, mirrored, "--degenerate", "official")
    assert code == 0 and "0/0 counts as a match" in text


def test_ava(tmp_path):
    truth = _write(tmp_path / "gt.csv", "v,0902,0,0,0.5,1,12,1\nv,0902,0,0,0.5,1,14,1\nv,0903\n")
    rows = ["v,902,0,0,0.5,1,12,0.9", "v,903,0,0,0.5,1,12,0.95", "v,902,0,0,0.5,1,14,0.1"]
    found = _write(tmp_path / "det.csv", "\n".join(rows) + "\n")
    out = tmp_path / "out.json"
    code, text, error = run("ava", truth, found, "--json", out)
    assert code == 0, error
    written = json.loads(out.read_text())
    assert len(written["ap"]) == 60 and written["ap"]["12"] == 0.5 and written["ap"]["14"] == 1.0
    assert written["ap"]["1"] is None and written["mAP"] == 0.75
    assert "scored 2/2; AVA frame mAP, IoU 0.5, at most 50 detections per keyframe" in text
    excluded = _write(tmp_path / "excluded.csv", "v,0903\n")
    classes = _write(tmp_path / "list.pbtxt", 'item {\n  name: "stand"\n  id: 12\n}\n')
    code, text, _ = run("ava", truth, found, "--exclude", excluded, "--classes", classes, "--cap", 0, "--json", out)
    assert code == 0 and "scored 1/2" in text and "12 stand" in text and "no cap" in text
    assert json.loads(out.read_text())["ap"] == {"12": 1.0}


def test_retrieval(tmp_path):
    similarity = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.6, 0.0]])
    np.savez(tmp_path / "s.npz", similarity=similarity, positives=[[0, -1], [1, -1], [1, 0]])
    out = tmp_path / "out.json"
    code, text, error = run("retrieval", tmp_path / "s.npz", "--json", out)
    assert code == 0, error
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["query_to_item/R@1"] == 100 and metrics["item_to_query/R@1"] == 100
    assert metrics["query_to_item/chance/R@1"] == pytest.approx(100 * (1 + 1 + 2) / 9)
    assert metrics["item_to_query/mean_rank"] == 1
    assert "items to queries over the 2 items that answer one" in text and "4 right pairs" in text
    np.savez(tmp_path / "s.npz", similarity=np.zeros((4, 4)))
    code, _, _ = run("retrieval", tmp_path / "s.npz", "--json", out)
    metrics = json.loads(out.read_text())["metrics"]
    assert code == 0 and metrics["query_to_item/R@1"] == metrics["item_to_query/chance/R@1"] == 25
    np.savez(tmp_path / "s.npz", similarity=np.zeros((2, 2)), positives=[5, 0])
    assert "items are 0 to 1" in str(run("retrieval", tmp_path / "s.npz")[2])
    np.savez(tmp_path / "s.npz", similarity=np.zeros((2, 3)))
    assert "2 queries but 3 items" in str(run("retrieval", tmp_path / "s.npz")[2])


def test_vqa(tmp_path):
    rows = ['{"answer": "dog", "question": "what is it?"}', '{"answer": "two", "question": "how many?"}']
    truth = _write(tmp_path / "test.jsonl", "\n".join(rows))
    answers = _write(tmp_path / "answers.json", {"0": "dog", "7": "two"})
    vocabulary = _write(tmp_path / "words.json", {"dog": 0, "cat": 1})
    out = tmp_path / "out.json"
    code, text, error = run("vqa", truth, answers, "--vocabulary", vocabulary, "--json", out)
    assert code == 0, error
    written = json.loads(out.read_text())
    assert written["metrics"] == {"accuracy": 50, "accuracy/how": 0, "accuracy/what": 100, "coverage": 50}
    assert written["baselines"] == {"chance/accuracy": 25, "majority/accuracy": 50}
    assert "scored 1/2; exact match over 2 questions (1 without a prediction" in text
    assert run("vqa", truth, _write(tmp_path / "answers.json", {"7": "dog"}))[0] != 0


def test_classification(tmp_path):
    truth = _write(tmp_path / "test.txt", "a b.avi run\nc.avi jump\nd.avi jump\n")
    scores = _write(tmp_path / "scores.csv", "id,jump,run\na b.avi,0,1\nc.avi,1,1\nz.avi,0,0\n")
    out = tmp_path / "out.json"
    code, text, error = run("classification", truth, scores, "--json", out)
    assert code == 0, error
    written = json.loads(out.read_text())
    assert written["metrics"] == pytest.approx({"top-1": 50, "top-5": 200 / 3, "mean_class": 62.5})
    assert written["classes"] == ["jump", "run"] and written["confusion"] == [[0.5, 0.5], [0, 1]]
    assert written["baselines"]["majority/top-1"] == pytest.approx(200 / 3)
    assert "scored 2/3; accuracy over 3 clips" in text and "scores of 1 other clips left out" in text


def test_mistakes_end_in_one_line(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ["score", "ava", str(tmp_path / "gt.csv"), str(tmp_path / "det.csv")]
    done = subprocess.run([sys.executable, "-m", "svilm", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"svilm: {tmp_path / 'gt.csv'}: no such file\n"


def test_what_is_wrong_between_two_files_names_them(tmp_path, segments):
    gt = _write(tmp_path / "gt.csv", "v,902,.1,.1,.2,.2,12,1\n")
    pred = _write(tmp_path / "pred.csv", "v,902,0,0,0,0,12,1\n")
    error = str(run("ava", pred, gt)[2])
    assert error.startswith(f"{pred} with {gt}: keyframe v,902") and "ground truth is the first of the two" in error
    truth, predictions = segments
    error = str(run("activitynet", truth, predictions)[2])
    assert error.startswith(f"{truth} with {predictions}: 1 predictions") and "--unknown-labels ignore" in error
    rows = [{"segment": [8, 0], "label": "run", "score": 0.5}]
    error = str(run("activitynet", truth, _write(tmp_path / "back.json", {"results": {"a": rows}}))[2])
    assert error.startswith(f"{truth} with {tmp_path / 'back.json'}: ") and "--degenerate official" in error


def test_a_video_is_no_matrix_and_no_advice_to_unpickle_it(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom")
    error = str(run("retrieval", tmp_path / "clip.mp4")[2])
    assert "clip.mp4: not an npz" in error and "no .npy and no .npz" in error and "pickle" not in error


def test_help_needs_no_heavy_library():
    code = (
        "import sys\nfrom svilm.cli.score import app\n"
        "try: app(['ava', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
