"""Files of answers, class scores and similarities: each documented form is read, each wrong one named."""

import json

import numpy as np
import pytest

from svilm.metrics.classification import Question
from svilm.metrics.files import ScoreFileError, read_names
from svilm.metrics.submissions import (
    HandedIn,
    aligned,
    read_answers,
    read_class_scores,
    read_labels,
    read_questions,
    read_similarity,
)


def _write(folder, name, data):
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_the_three_forms_of_questions(tmp_path):
    original = [{"id": 5, "video_id": 1, "question": "what is it?", "answer": "dog"}]
    assert read_questions(_write(tmp_path, "a.json", original)) == [Question("5", "dog", "what")]
    clipbert = '{"answer": "dog", "question": "is it?", "answer_type": "what", "video_id": "video1"}\n\n{"answer": "x"}'
    assert read_questions(_write(tmp_path, "b.jsonl", clipbert)) == [
        Question("video1:1", "dog", "what"),
        Question("1", "x", "other"),
    ]
    lavis = [{"question_id": "q7", "video": "v.mp4", "question": "Where?", "answer": "here"}]
    assert read_questions(_write(tmp_path, "c.json", lavis)) == [Question("q7", "here", "other")]


def test_the_forms_of_answers(tmp_path):
    expected = [("5", "dog"), ("6", "cat")]
    rows = [{"question_id": 5, "answer": "dog"}, {"question_id": "6", "answer": "cat"}]
    assert read_answers(_write(tmp_path, "a.json", {"5": "dog", "6": "cat"})) == expected
    assert read_answers(_write(tmp_path, "b.json", rows)) == expected
    assert read_answers(_write(tmp_path, "c.jsonl", "\n".join(map(json.dumps, rows)))) == expected


@pytest.mark.parametrize(
    ("read", "name", "data", "message"),
    [
        (read_questions, "q.json", [{"id": 1, "answer": "a"}, {"answer": "b"}], "entry 1: id is None"),
        (read_questions, "q.json", [{"id": 1}], "entry 0: answer is None, must be a text"),
        (read_questions, "q.json", [{"id": 1, "answer": 3}], "entry 0: answer is 3"),
        (read_questions, "q.json", {"questions": []}, "must be a list of objects"),
        (read_questions, "q.jsonl", '{"answer": "a"}\n{"answer"\n', "line 2: not JSON"),
        (read_answers, "p.json", {"1": None}, "1 is None, must be a text"),
        (read_answers, "p.json", [{"id": 1, "answer": "a"}], "entry 0: question_id is None"),
        (read_answers, "p.json", '{"1": "a", "1": "b"}', "key '1' occurs twice"),
        (read_names, "n.json", ["a", 1], "entry 1, 1, is no text"),
        (read_names, "n.txt", "a b\nc\na b\n", "entry 2, 'a b', occurs twice"),
        (read_names, "n.txt", "\n", "no name in it"),
        (read_labels, "l.csv", "a,run\nb\n", r"line 2: wanted are an id and a label, found \['b'\]"),
        (read_labels, "l.csv", "id,label\na,run\na,run\n", "line 3: id 'a' occurs twice"),
        (read_labels, "l.txt", "a run\nalone\n", "line 2: wanted are"),
        (read_labels, "l.txt", "", "no clip in it"),
        (read_labels, "l.json", {"a": [1]}, "must be an object from ids to labels"),
        (read_class_scores, "s.csv", "", "the first line must be"),
        (read_class_scores, "s.csv", "id,run\na,0.5,1\n", "line 2 has 3 columns, the header 2"),
        (read_class_scores, "s.csv", "id,run\na,high\n", "line 2: run is 'high'"),
        (read_class_scores, "s.csv", "id,run\na,1\na,1\n", "id 'a' occurs twice"),
        (read_class_scores, "s.csv", "id,run,run\na,1,1\n", "class 'run' occurs twice"),
        (read_class_scores, "s.npz", "no archive", r"not an npz of plain arrays .* ids \(\[clips\] texts\)"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, read, name, data, message):
    with pytest.raises(ScoreFileError, match=message):
        read(_write(tmp_path, name, data))
    with pytest.raises(ScoreFileError, match="no such file"):
        read(tmp_path / "none" / name)


def test_names_in_each_form(tmp_path):
    for name, data in [("a.json", ["x", "y z"]), ("b.json", {"x": 0, "y z": 1}), ("c.txt", "x\r\n\n y z \n")]:
        assert read_names(_write(tmp_path, name, data)) == ["x", "y z"]


def test_labels_in_each_form(tmp_path):
    odd = "a[1] (b), #c.avi"
    expected = {odd: "3", "d": "12"}
    for name, data in [
        ("a.csv", f'id,label\n"{odd}",3\nd, 12\n'),
        ("b.json", {odd: 3, "d": "12"}),
        ("c.txt", f"{odd} 3\nd 12\n"),
    ]:
        assert read_labels(_write(tmp_path, name, data)) == expected


def test_class_scores_in_each_form(tmp_path):
    csv = read_class_scores(_write(tmp_path, "a.csv", "id,run,jump\na,0.5,1\nb,2,-3e-1\n"))
    np.savez(tmp_path / "a.npz", ids=["a", "b"], scores=[[0.5, 1], [2, -0.3]], classes=["run", "jump"])
    npz = read_class_scores(tmp_path / "a.npz")
    assert csv.ids == npz.ids == ("a", "b") and csv.classes == npz.classes == ("run", "jump")
    np.testing.assert_array_equal(csv.scores, npz.scores)
    np.savez(tmp_path / "b.npz", ids=[1, 2], scores=np.eye(2, dtype=int))
    bare = read_class_scores(tmp_path / "b.npz")
    assert bare.ids == ("1", "2") and bare.classes is None and bare.scores.dtype == np.float64


def test_labels_meet_their_columns():
    scores = np.array([[0.1, 0.9], [0.8, 0.2]])
    named, bare = HandedIn(("b", "a"), scores, ("run", "jump")), HandedIn(("b", "a"), scores, None)
    rows, labels, missing = aligned({"a": "jump", "c": "run", "b": "run"}, named)
    assert labels.tolist() == [1, 0, 0] and missing.tolist() == [False, True, False]
    assert rows[0].tolist() == [0.8, 0.2] and rows[2].tolist() == [0.1, 0.9]
    assert aligned({"a": "1"}, named)[1].tolist() == aligned({"a": "1"}, bare)[1].tolist() == [1]
    # a name that looks like a number is a name
    assert aligned({"a": "1"}, HandedIn(("a",), scores[:1], ("1", "0")))[1].tolist() == [0]
    with pytest.raises(ValueError, match=r"1 labels are no class, for instance 'swim'; classes are .'run', 'jump'."):
        aligned({"a": "run", "b": "swim"}, named)
    with pytest.raises(ValueError, match="for instance '2'; classes are 0 to 1"):
        aligned({"a": "2"}, bare)
    with pytest.raises(ValueError, match=r"no scores have the id of a clip .*'x', 'b', 'a'"):
        aligned({"x": "run"}, named)


def test_similarity_with_its_three_kinds_of_positives(tmp_path):
    path = tmp_path / "s.npz"
    for positives, expected in [(None, None), ([1, 0], [[1], [0]]), ([[0, 1, 2], [2, -1, -1]], [[0, 1, 2], [2]])]:
        np.savez(path, similarity=np.ones((2, 3)), **({} if positives is None else {"positives": positives}))
        similarity, found = read_similarity(path)
        assert similarity.shape == (2, 3) and found == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.eye(2)}, r"no array 'similarity' among \['scores'\]"),
        ({"similarity": np.eye(2) > 0}, r"similarity is bool of shape \(2, 2\)"),
        ({"similarity": np.ones(3)}, r"shape \(3,\), must be a matrix"),
        ({"similarity": np.eye(2), "positives": [0.0, 1.0]}, "positives is float64"),
        ({"similarity": np.eye(2), "positives": [0]}, r"must be whole numbers of shape \[2\] or"),
        ({"similarity": np.array([[object()]])}, "not an npz of plain arrays"),
    ],
)
def test_a_wrong_similarity_is_told(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ScoreFileError, match=message):
        read_similarity(tmp_path / "s.npz")


def test_other_wrong_arrays(tmp_path):
    np.save(tmp_path / "bare.npy", np.eye(2))
    with pytest.raises(ScoreFileError, match="one bare array"):
        read_similarity(tmp_path / "bare.npy")
    np.savez(tmp_path / "s.npz", ids=["a"], scores=np.eye(2), classes=["run", "jump"])
    with pytest.raises(ScoreFileError, match=r"scores is \(2, 2\), but there are 1 ids and 2 classes"):
        read_class_scores(tmp_path / "s.npz")
