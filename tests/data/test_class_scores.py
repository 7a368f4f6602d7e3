"""Files of class scores: what was written is read, the CUHK layout too, and anything else is told exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svilm.data.class_scores import ClassScores, ClassScoresError, read_class_scores, write_class_scores

SCORES = ClassScores(("a", "v_b"), ("Skiing", "Bowling", "Été"), np.arange(6.0).reshape(2, 3), "linear, 10 epochs")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_class_scores(tmp_path / "new" / "scores.npz", SCORES)
    found = read_class_scores(tmp_path / "new" / "scores.npz")
    assert (found.ids, found.classes, found.source) == (SCORES.ids, SCORES.classes, SCORES.source)
    assert found.scores.dtype == np.float32 and (found.scores == SCORES.scores).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.npz"]
    with pytest.raises(ClassScoresError, match=r"written as \.npz"):
        write_class_scores(tmp_path / "scores.json", SCORES)


def test_the_same_scores_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_class_scores(tmp_path / name, SCORES)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_prefix_of_ids_is_of_no_account() -> None:
    assert SCORES.of("a").tolist() == SCORES.of("v_a").tolist() == [0, 1, 2]
    assert SCORES.of("b").tolist() == SCORES.of("v_b").tolist() == [3, 4, 5]
    with pytest.raises(ClassScoresError, match=r"no class scores for video 'c' among 2 \(linear, 10 epochs\)"):
        SCORES.of("c")


def test_columns_can_be_put_into_another_order() -> None:
    other = SCORES.ordered(["Bowling", "Été", "Skiing"])
    assert other.classes == ("Bowling", "Été", "Skiing") and other.scores.tolist() == [[1, 2, 0], [4, 5, 3]]
    with pytest.raises(ClassScoresError, match=r"none for \['Curling'\] \(1 in all\), unknown \['Skiing', 'Été'\]"):
        SCORES.ordered(["Bowling", "Curling"])


def test_the_cuhk_layout(tmp_path: Path) -> None:
    path = tmp_path / "cuhk_val_simp_share.json"
    path.write_text(json.dumps({"results": {"x": [0.5, 1e-9], "y": [1, 0]}, "class": ["B", "A"]}))
    found = read_class_scores(path)
    assert (found.ids, found.classes) == (("x", "y"), ("B", "A"))
    assert found.of("x").tolist() == np.float32([0.5, 1e-9]).tolist()
    assert found.source == "CUHK layout, cuhk_val_simp_share.json"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], 'needs "results"'),
        ({"results": {"x": [1]}}, 'needs "results"'),
        ({"results": [], "class": []}, 'needs "results"'),
        ({"results": {}, "class": ["A"]}, "has no video"),
        ({"results": {"x": [1, 2]}, "class": ["A"]}, "video 'x' needs 1 numbers, one for each class, has a list of 2"),
        ({"results": {"x": ["1"]}, "class": ["A"]}, "video 'x' needs 1 numbers"),
        ({"results": {"x": {"A": 1}}, "class": ["A"]}, "has dict"),
        ({"results": {"x": [1, 1]}, "class": ["A", "A"]}, "class 'A' is empty or occurs twice"),
    ],
)
def test_json_of_another_layout_is_told(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ClassScoresError, match=message) as error:
        read_class_scores(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"results": {"x": [NaN]}, "class": ["A"]}', "video 'x' needs 1 numbers"),
        (b'{"results": {"x": [1], "x": [2]}, "class": ["A"]}', "not JSON .key 'x' occurs twice"),
        (b'{"results": ', "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_broken_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "scores.json"
    path.write_bytes(content)
    with pytest.raises(ClassScoresError, match=message) as error:
        read_class_scores(path)
    assert str(path) in str(error.value)


GOOD = {
    "ids": np.array(["a"]),
    "classes": np.array(["A", "B"]),
    "scores": np.zeros((1, 2), np.float32),
    "source": np.array("us"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((2, 2))}, "scores are 2 x 2, must be 1 ids x 2 classes"),
        ({"scores": np.array([[np.nan, 0]])}, "scores of 'a' and 0 others are not finite"),
        ({"scores": np.zeros((1, 2), int)}, "needs ids and classes as lists"),
        ({"ids": np.array([1])}, "needs ids and classes as lists"),
        ({"ids": np.array([""])}, "id '' is empty"),
        ({"classes": np.array(["A", "A"])}, "class 'A' is empty or occurs twice"),
        ({"more": np.array(1)}, "needs ids, classes, scores, source, has classes, ids, more"),
        ({"ids": np.array(["a"], dtype=object)}, "not an npz of plain arrays"),
    ],
)
def test_npz_of_another_form_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, **{**GOOD, **change})
    with pytest.raises(ClassScoresError, match=message) as error:
        read_class_scores(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_class_scores(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    (tmp_path / "a.csv").touch()
    np.savez_compressed(tmp_path / "whole.npz", **GOOD)
    for place, data in enumerate((b"\x63", b"\x01")):  # an unknown method of compression; encrypted
        whole = (tmp_path / "whole.npz").read_bytes()
        at = whole.index(b"PK\x01\x02") + (10, 8)[place]
        (tmp_path / f"{place}.npz").write_bytes(whole[:at] + data + whole[at + 1 :])
    np.save(tmp_path / "b.npy", GOOD["scores"])
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    for name, message in (
        ("none.npz", "no such file"), ("a.npz", "not an npz"), ("a.csv", r"not '.csv'"), ("b.npz", "it is an npy"),
        ("0.npz", "not an npz"), ("1.npz", "not an npz"),
    ):  # fmt: skip
        with pytest.raises(ClassScoresError, match=message):
            read_class_scores(tmp_path / name)
