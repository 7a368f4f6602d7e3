"""AVA frame mAP: by hand, against a slow twin, the traps of the official rules, and files that are wrong."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from slow_detection import slow_ava, slow_cap

from svilm.metrics import ava
from svilm.metrics.ava import (
    CLASSES,
    boxes_of,
    evaluate_boxes,
    keyframe_name,
    read_classes,
    read_detections,
    read_excluded,
    read_truth,
)
from svilm.metrics.files import ScoreFileError

LEFT, RIGHT, NEAR_LEFT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.05, 0.0, 0.5, 1.0)
FRAME = ("v", 902)


def _boxes(*rows, also=()):
    """Boxes of (keyframe, box, action, score)."""
    return boxes_of(
        [row[0] for row in rows],
        np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float64),
        also=also,
    )


TRUTH = _boxes((FRAME, LEFT, 12, 1), (FRAME, RIGHT, 12, 2), (FRAME, LEFT, 14, 1))


def test_the_60_classes():
    assert len(CLASSES) == 60 and CLASSES[0] == 1 and CLASSES[-1] == 80 and 2 not in CLASSES and 75 not in CLASSES


def test_by_hand():
    found = _boxes((FRAME, LEFT, 12, 0.9), (FRAME, LEFT, 12, 0.8), (FRAME, RIGHT, 12, 0.7))
    scores = evaluate_boxes(TRUTH, found)
    assert scores.ap[12] == pytest.approx((1 + 2 / 3) / 2)  # hit, repeated, hit
    assert scores.ap[14] == 0 and scores.ap[1] is None  # truth without detections, no truth
    assert scores.mean_ap == pytest.approx(5 / 12) and scores.metrics() == {"mAP@0.50": 100 * scores.mean_ap}
    assert set(scores.ap) == set(CLASSES) and scores.num_truths[12] == 2
    assert "at most 50 detections per keyframe; 1/1 keyframes" in scores.protocol


def test_only_the_nearest_box_is_compared():
    # the surest detection takes LEFT; the second is nearest to LEFT as well, and may not turn to the other box
    truth = _boxes((FRAME, LEFT, 12, 1), (FRAME, NEAR_LEFT, 12, 2))
    found = _boxes((FRAME, LEFT, 12, 0.9), (FRAME, LEFT, 12, 0.8))
    assert evaluate_boxes(truth, found).ap[12] == 0.5


def test_an_overlap_of_exactly_half_is_a_match_and_less_is_not():
    truth = _boxes((FRAME, (0.0, 0.0, 1.0, 1.0), 12, 1))
    assert evaluate_boxes(truth, _boxes((FRAME, LEFT, 12, 0.9))).ap[12] == 1
    assert evaluate_boxes(truth, _boxes((FRAME, NEAR_LEFT, 12, 0.9))).ap[12] == 0


def test_of_equal_overlaps_the_higher_person_id_is_taken():
    # the first detection overlaps both alike; the second reaches LEFT only
    middle, left = (0.25, 0.0, 0.75, 1.0), (0.0, 0.0, 0.5, 1.0)
    wide_left, wide_right = (0.0, 0.0, 0.75, 1.0), (0.25, 0.0, 1.0, 1.0)
    found = _boxes((FRAME, middle, 12, 0.9), (FRAME, left, 12, 0.8))
    for person_of_left, expected in ((1, 1.0), (9, 0.5)):
        truth = _boxes((FRAME, wide_left, 12, person_of_left), (FRAME, wide_right, 12, 5))
        assert evaluate_boxes(truth, found).ap[12] == expected


def test_of_equal_scores_the_later_row_comes_first():
    good, bad = (FRAME, LEFT, 14, 0.5), (FRAME, RIGHT, 14, 0.5)
    assert evaluate_boxes(TRUTH, _boxes(bad, good)).ap[14] == 1
    assert evaluate_boxes(TRUTH, _boxes(good, bad)).ap[14] == 0.5


def test_a_full_keyframe_takes_only_what_is_surer():
    good, bad, sure = (FRAME, LEFT, 14, 0.5), (FRAME, RIGHT, 14, 0.5), (FRAME, RIGHT, 12, 0.9)
    assert evaluate_boxes(TRUTH, _boxes(bad, good), cap=1).ap[14] == 0
    assert evaluate_boxes(TRUTH, _boxes(good, bad), cap=1).ap[14] == 1
    # what is surer takes the place of the lowest class, then of the lowest y1, x1, y2, x2: here of LEFT
    assert evaluate_boxes(TRUTH, _boxes(good, bad, sure), cap=2).ap[14] == 0
    lower = (FRAME, RIGHT, 13, 0.5)
    assert evaluate_boxes(TRUTH, _boxes(good, lower, sure), cap=2).ap[14] == 1


@pytest.mark.parametrize("cap", [1, 7, 50])
def test_the_cap_keeps_what_the_heap_of_the_official_script_keeps(cap):
    draw = np.random.default_rng(cap)
    frames = [("v", int(second)) for second in draw.integers(0, 8, 1500)]
    corners = draw.integers(0, 3, (1500, 2)) / 10
    boxes = np.concatenate([corners, corners + draw.integers(1, 4, (1500, 2)) / 10], axis=1)
    actions, scores = draw.choice([1, 3, 4], 1500), draw.integers(0, 4, 1500) / 4
    kept = ava._surest(ava._Rows(np.array([second for _, second in frames]), boxes, actions, scores), cap)
    rows = [(n, frames[n], tuple(boxes[n]), int(actions[n]), scores[n]) for n in range(1500)]
    everything = []
    for second in range(8):
        mine = [row for row in rows if row[1] == ("v", second)]
        everything += [mine[place] for place in slow_cap(mine, cap)]
    assert sorted(rows[n][1:] for n in kept) == sorted(row[1:] for row in everything)  # a row may have a twin
    assert len(kept) == 8 * cap and (np.diff(kept) > 0).all()


def test_the_cap_counts_all_evaluated_classes_of_a_keyframe_and_boxes_without_area():
    flat = (0.5, 0.0, 0.5, 1.0)
    found = _boxes((FRAME, LEFT, 14, 0.1), (FRAME, LEFT, 12, 0.9), (FRAME, flat, 12, 0.8), (FRAME, LEFT, 2, 1.0))
    assert evaluate_boxes(TRUTH, found, cap=3).ap[14] == 1  # class 2 is not evaluated and takes no place
    capped = evaluate_boxes(TRUTH, found, cap=2)
    assert capped.ap[14] == 0 and (capped.num_over_cap, capped.num_empty, capped.num_detections) == (1, 1, 1)
    free = evaluate_boxes(TRUTH, found, cap=0)
    assert free.ap[14] == 1 and free.num_over_cap == 0 and "no cap" in free.protocol


def test_which_keyframes_are_evaluated():
    elsewhere, empty, other = ("v", 903), ("v", 904), ("v", 905)
    truth = _boxes((FRAME, LEFT, 14, 1), (other, LEFT, 2, 1), also=[empty])
    hit = (FRAME, LEFT, 14, 0.5)
    for place, expected in ((elsewhere, 1), (empty, 0.5), (other, 0.5)):
        scores = evaluate_boxes(truth, _boxes((place, LEFT, 14, 0.9), hit))
        assert scores.ap[14] == expected and scores.num_elsewhere == (place == elsewhere)
    scores = evaluate_boxes(truth, _boxes((empty, LEFT, 14, 0.9), hit), excluded=[keyframe_name("v", 904)])
    assert scores.ap[14] == 1 and (scores.num_keyframes, scores.num_official) == (2, 3)
    assert keyframe_name("v", "0902") == keyframe_name("v", 902.0) != keyframe_name("v", 902.5)


def test_a_detector_that_says_nothing_scores_low():
    generator = np.random.default_rng(0)
    frames = [("v", second) for second in range(40)]
    actions = generator.choice([1, 3, 4, 5], 40)
    boxes = np.tile(LEFT, (40, 1))
    truth = boxes_of(frames, boxes, actions)
    everything = boxes_of(frames * 4, np.tile(LEFT, (160, 1)), np.repeat([1, 3, 4, 5], 40), np.full(160, 0.3))
    scores = evaluate_boxes(truth, everything)
    assert scores.mean_ap < 0.5  # and not 1: ties follow the order of the rows, never the truth
    assert evaluate_boxes(truth, replace(truth, scores=np.full(40, 0.3))).mean_ap == 1


def _random(seed: int):
    """Truth and detections of a few keyframes as plain rows; no equal scores."""
    draw = random.Random(seed)

    def box():
        x, y = draw.uniform(0, 0.6), draw.uniform(0, 0.6)
        return (x, y, x + draw.uniform(0.1, 0.4), y + draw.uniform(0.1, 0.4))

    truth, found = [], []
    for second in range(draw.randint(1, 4)):
        frame = ("v", second)
        for person in range(draw.randint(0, 3)):
            where = box()
            for action in draw.sample([1, 2, 3, 4], draw.randint(1, 3)):
                truth.append((frame, where, action, draw.choice([person, 0])))
                for _ in range(draw.randint(0, 3)):
                    near = tuple(value + draw.gauss(0, 0.04) for value in where)
                    found.append((draw.choice([frame, frame, ("v", 9)]), near, action, draw.random()))
    truth.append((("v", 0), (0.1, 0.1, 0.3, 0.3), 1, 7))
    found += [(("v", 0), box(), draw.choice([1, 2, 3, 4]), draw.random()) for _ in range(draw.randint(0, 3))]
    return truth, found


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 50]), st.booleans())
def test_equal_to_the_slow_twin(seed, cap, ties):
    truth, found = _random(seed)
    assume(not found or {row[0] for row in found} & {row[0] for row in truth})
    if ties:
        found = [(*row[:3], round(row[3], 1)) for row in found]
    scores = evaluate_boxes(_boxes(*truth), _boxes(*found), classes=[1, 3, 4, 5], cap=cap)
    slow = slow_ava(truth, found, [1, 3, 4, 5], cap)
    assert {k: v is None for k, v in scores.ap.items()} == {k: v is None for k, v in slow.items()}
    for action, value in slow.items():
        assert value is None or scores.ap[action] == pytest.approx(value, abs=1e-12)


def test_bad_boxes_are_refused():
    flat = _boxes((FRAME, (0.5, 0.0, 0.5, 1.0), 14, 1), (FRAME, LEFT, 12, 1))
    with pytest.raises(ValueError, match=r"keyframe v,902.000000: ground truth box .* has no area"):
        evaluate_boxes(flat, TRUTH)
    assert evaluate_boxes(flat, flat, classes=[12]).ap[12] == 1  # of a class that is not evaluated it may be
    with pytest.raises(ValueError, match="no ground truth of the 1 classes in 1 scored keyframes"):
        evaluate_boxes(TRUTH, TRUTH, classes=[80])
    with pytest.raises(ValueError, match=r"keyframe v,902.000000: box .* is not finite"):
        _boxes((FRAME, LEFT, 14, float("nan")))
    with pytest.raises(ValueError, match="is not finite"):
        _boxes((FRAME, (0, 0, float("inf"), 1), 14, 1))


def test_detections_of_other_keyframes_are_refused():
    for other, name in ((("v.mp4", 902), r"v\.mp4,902"), (("v", 2), "v,2")):
        message = rf"none of 1 detections .* such as {name}\.000000 there, v,902\.000000 in the ground truth; write"
        with pytest.raises(ValueError, match=message):
            evaluate_boxes(TRUTH, _boxes((other, LEFT, 12, 0.9)))
    assert evaluate_boxes(TRUTH, _boxes()).mean_ap == 0
    assert evaluate_boxes(TRUTH, _boxes((FRAME, LEFT, 12, 0.9), (("w", 1), LEFT, 12, 0.8))).num_elsewhere == 1
    excluded = [keyframe_name("w", 1)]
    truth = _boxes((FRAME, LEFT, 12, 1), (("w", 1), LEFT, 12, 1))
    assert evaluate_boxes(truth, _boxes((("w", 1), LEFT, 12, 0.9)), excluded=excluded).mean_ap == 0


def test_boxes_in_pixels_are_refused_unless_the_truth_has_them_too():
    pixels = [(FRAME, (0.0, 0.0, 320.0, 480.0), 12, 0.9), (FRAME, (320.0, 0.0, 640.0, 480.0), 12, 0.8)]
    for truth, found in ((TRUTH, _boxes(*pixels)), (_boxes(*pixels), TRUTH)):
        with pytest.raises(ValueError, match=r"shares of the picture, 0 to 1: divide pixels by its width and height"):
            evaluate_boxes(truth, found)
    assert evaluate_boxes(_boxes(*pixels), _boxes(*pixels)).mean_ap == 1
    beyond = _boxes((FRAME, (0.0, 0.0, 0.5, 1.04), 12, 0.9))  # a detector may point a little outside
    assert evaluate_boxes(TRUTH, beyond).ap[12] == 0.5


def _write(folder, text):
    path = folder / "file.csv"
    path.write_text(text)
    return path


def test_reading_annotations_and_detections(tmp_path):
    truth = read_truth(_write(tmp_path, "v,0902,0.1,0.2,0.3,0.4,12,7\nv,902.0,0.1,0.2,0.3,0.4,80\n\nv,903\n"))
    assert truth.keyframes == ("v,902.000000", "v,903.000000")
    assert truth.frame.tolist() == [0, 0] and truth.actions.tolist() == [12, 80]
    assert truth.scores.tolist() == [7, 1] and truth.boxes[0].tolist() == [0.1, 0.2, 0.3, 0.4]
    found = read_detections(_write(tmp_path, "v,905\nv,0902,0,0,1,1,12,1e-3\n"))
    assert found.scores.tolist() == [0.001] and found.keyframes == ("v,905.000000", "v,902.000000")
    assert read_excluded(_write(tmp_path, "v,0902\n")) == {"v,902.000000"}
    assert len(read_detections(_write(tmp_path, "v,905\n"))) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v,902,0,0,1,1,12", "line 2 has 7 columns; wanted: video, second"),
        ("v,902,0,0,one,1,12,0.5", "line 2: x2 is 'one'"),
        ("v,902,0,nan,1,1,12,0.5", "line 2: y1 is 'nan', must be a finite number"),
        ("v,902,0,0,1,inf,12,0.5", "line 2: y2 is 'inf'"),
        ("v,902,0,0,1,1,12.5,0.5", "line 2: action id is '12.5', must be a whole number"),
        ("v,902,0,0,1,1,12,", "line 2: score is ''"),
        ("v,902,0,0,1,1,12,-inf", "line 2: score is '-inf'"),
        ("v,middle,0,0,1,1,12,0.5", "line 2: second is 'middle'"),
        ('v,902,0,0,1,1,12,"0.5', "line 2: unexpected end"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(ScoreFileError, match=f"file.csv: {message}"):
        read_detections(_write(tmp_path, f"v,902,0,0,1,1,12,0.5\n{line}\n"))


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(ScoreFileError, match="no row in it"):
        read_truth(_write(tmp_path, ""))
    with pytest.raises(ScoreFileError, match="no such file"):
        read_truth(tmp_path / "none.csv")
    with pytest.raises(ScoreFileError, match="8 columns; wanted: video, second"):
        read_excluded(_write(tmp_path, "v,902,0,0,1,1,12,0.5\n"))
    (tmp_path / "file.csv").write_bytes(b"v,\xff\n")
    with pytest.raises(ScoreFileError, match="not UTF-8"):
        read_truth(tmp_path / "file.csv")


def test_reading_class_lists(tmp_path):
    both = 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nlabel {\n  name: "crawl"\n  label_id: 2\n}\n'
    assert read_classes(_write(tmp_path, both)) == {1: "bend/bow (at the waist)", 2: "crawl"}
    for text, message in [
        ('  name: "a"\n  id: one\n', "line 2: id is 'one'"),
        ("  id: 1\n  id: 1\n", "line 2: id 1 occurs twice"),
        ("nothing", "no class in it"),
    ]:
        with pytest.raises(ScoreFileError, match=message):
            read_classes(_write(tmp_path, text))
