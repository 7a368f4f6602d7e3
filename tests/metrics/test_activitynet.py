"""ActivityNet mAP: by hand, against a slow twin, the traps of the official rules, and files that are wrong."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_detection import slow_activitynet

from svilm.metrics.activitynet import THRESHOLDS, evaluate_segments, read_predictions, read_truth
from svilm.metrics.files import ScoreFileError

RUN, JUMP = [(0.0, 10.0, "run")], [(5.0, 15.0, "jump")]


def test_a_perfect_and_an_absent_class_by_hand():
    scores = evaluate_segments({"a": RUN, "b": JUMP}, [("a", 0.0, 10.0, "run", 0.5)])
    assert scores.labels == ("jump", "run")
    assert scores.ap.tolist() == [[0.0] * 10, [1.0] * 10]  # no prediction: 0, and it counts
    assert scores.average_map == 0.5
    assert scores.metrics()["mAP@0.75"] == 50 and scores.metrics()["average_mAP"] == 50
    assert (scores.num_videos, scores.num_official, scores.num_without_predictions) == (2, 2, 1)
    assert "2/2 videos (1 without a prediction)" in scores.protocol and "later entry first" in scores.protocol


def test_the_thresholds_are_the_official_ones_and_a_hit_on_one_counts():
    assert THRESHOLDS[8] == 0.8999999999999999
    scores = evaluate_segments({"a": [(0, 10, "run")]}, [("a", 0, 9, "run", 1)])
    assert scores.ap[0].tolist() == [1] * 9 + [0]  # overlap 0.9, above the ninth threshold
    assert evaluate_segments({"a": [(0, 10, "run")]}, [("a", 0, 5, "run", 1)]).ap[0].tolist() == [1] + [0] * 9


def test_a_second_prediction_may_take_the_second_best_segment():
    truth = {"a": [(0.0, 10.0, "run"), (1.0, 11.0, "run")]}
    same = [("a", 0.0, 10.0, "run", 0.9), ("a", 0.0, 10.0, "run", 0.8)]
    ap = evaluate_segments(truth, same).ap[0]
    assert ap[THRESHOLDS < 9 / 11].tolist() == [1.0] * 7
    assert ap[THRESHOLDS > 9 / 11].tolist() == [0.5] * 3


def test_predictions_elsewhere_are_false_positives():
    truth = {"a": RUN, "b": JUMP, "empty": []}
    hit = ("a", 0.0, 10.0, "run", 0.1)
    for video in ("b", "empty", "other subset"):
        assert evaluate_segments(truth, [(video, 0.0, 10.0, "run", 0.9), hit]).ap[1].tolist() == [0.5] * 10


def test_of_equal_scores_the_later_entry_comes_first():
    good, bad = ("a", 0.0, 10.0, "run", 0.5), ("a", 20.0, 30.0, "run", 0.5)
    assert evaluate_segments({"a": RUN}, [bad, good]).average_map == 1
    assert evaluate_segments({"a": RUN}, [good, bad]).average_map == 0.5


def test_of_equal_overlaps_the_later_segment_is_taken():
    # the first prediction overlaps both by 9/11; the second reaches only the segment that comes first in the file
    segments = [(0.0, 10.0, "run"), (2.0, 12.0, "run")]
    predictions = [("a", 1.0, 11.0, "run", 0.9), ("a", 0.0, 10.0, "run", 0.8)]
    at_highest = THRESHOLDS.tolist().index(0.8)
    assert evaluate_segments({"a": segments}, predictions).ap[0, at_highest] == 1
    assert evaluate_segments({"a": segments[::-1]}, predictions).ap[0, at_highest] == 0.5


def test_duplicates_and_scores_are_left_as_they_are():
    assert evaluate_segments({"a": RUN * 2}, [("a", 0.0, 10.0, "run", 1.0)]).average_map == 0.5
    tiny = [("a", 0.0, 10.0, "run", 1.00000002), ("a", 20.0, 30.0, "run", 1.00000001)]
    assert evaluate_segments({"a": RUN}, tiny).average_map == 1


def _random(seed: int):
    """A small world of videos, classes and predictions, many of them near a true segment; no equal scores."""
    draw = random.Random(seed)
    truth, predictions = {}, []
    for video in range(draw.randint(1, 6)):
        truth[f"v{video}"] = segments = []
        for _ in range(draw.randint(0, 4)):
            start = draw.uniform(0, 50)
            segments.append((start, start + draw.uniform(1, 30), f"c{draw.randint(0, 2)}"))
    if not any(truth.values()):
        truth["v0"].append((0.0, 1.0, "c0"))
    labels = sorted({segment[2] for segments in truth.values() for segment in segments})
    everything = [(video, segment) for video, segments in truth.items() for segment in segments]
    for _ in range(draw.randint(0, 40)):
        video, (start, end, label) = draw.choice(everything)
        start, end = start + draw.gauss(0, 2), end + draw.gauss(0, 2)
        label = label if draw.random() < 0.8 else draw.choice(labels)
        video = video if draw.random() < 0.9 or not predictions else draw.choice([*truth, "unknown"])
        predictions.append((video, start, max(end, start + 0.1), label, draw.random()))
    return truth, predictions


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_equal_to_the_slow_twin(seed):
    truth, predictions = _random(seed)
    scores = evaluate_segments(truth, predictions)
    slow = slow_activitynet(truth, predictions, np.linspace(0.5, 0.95, 10))
    assert list(scores.labels) == list(slow)
    np.testing.assert_allclose(scores.ap, list(slow.values()), atol=1e-12)
    assert scores.average_map == pytest.approx(np.mean([np.mean(each) for each in slow.values()]))
    again = evaluate_segments(truth, random.Random(seed).sample(predictions, len(predictions)))
    assert (again.ap == scores.ap).all()  # without ties the order of the file does not matter


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_ties_and_degenerate_segments_follow_the_rule_too(seed):
    draw = random.Random(seed)
    truth, predictions = _random(seed)
    predictions = [(*p[:4], round(p[4], 1)) for p in predictions]
    everything = [(video, segment) for video, segments in truth.items() for segment in segments]
    for video, (start, end, label) in draw.choices(everything, k=3):
        predictions += [(video, end, start, label, draw.random()), (video, start, start, label, draw.random())]
        truth[video].append((start, start, label))
    scores = evaluate_segments(truth, predictions, degenerate="official")
    slow = slow_activitynet(truth, predictions, THRESHOLDS)
    np.testing.assert_allclose(scores.ap, list(slow.values()), atol=1e-12)


def test_the_trap_of_zero_over_zero_is_refused_or_told():
    mirrored = [("a", 10.0, 0.0, "run", 0.9)]
    with pytest.raises(ValueError, match=r"'a': prediction of 'run' from 10.0 to 0.0 s does not end after it starts"):
        evaluate_segments({"a": RUN}, mirrored)
    with pytest.raises(ValueError, match=r"ground truth segment of 'run' from 3.0 to 3.0 s"):
        evaluate_segments({"a": [*RUN, (3.0, 3.0, "run")]}, [])
    scores = evaluate_segments({"a": RUN}, mirrored, degenerate="official")
    assert scores.average_map == 1 and "0/0 counts as a match" in scores.protocol
    # where it meets no ground truth it is a false positive like any other
    scores = evaluate_segments({"a": RUN, "b": []}, [("b", 3.0, 3.0, "run", 0.9), ("a", 0.0, 10.0, "run", 0.1)])
    assert scores.average_map == 0.5 and "1 predictions do not end" in scores.protocol


def test_unknown_labels_are_refused_or_left_out():
    predictions = [("a", 0.0, 10.0, "swim", 0.9), ("a", 0.0, 10.0, "run", 0.1)]
    with pytest.raises(ValueError, match=r"1 predictions have labels without ground truth .* 'swim'"):
        evaluate_segments({"a": RUN}, predictions)
    scores = evaluate_segments({"a": RUN}, predictions, unknown_labels="ignore")
    assert scores.average_map == 1 and "1 predictions with unknown labels left out" in scores.protocol


def test_predictions_of_other_videos_are_refused():
    for name in ("v_a", "a.mp4"):
        with pytest.raises(ValueError, match=rf"none of 1 predictions .* such as '{name}' there, 'a' in the .*'v_'"):
            evaluate_segments({"a": RUN, "b": JUMP}, [(name, 0.0, 10.0, "run", 0.9)])
    assert evaluate_segments({"a": RUN}, []).average_map == 0
    assert evaluate_segments({"a": RUN, "b": JUMP}, [("b", 5.0, 15.0, "jump", 0.9)], blocked=["b"]).average_map == 0


def test_blocked_videos_leave_truth_and_predictions():
    truth = {"a": RUN, "b": JUMP}
    predictions = [("a", 0.0, 10.0, "run", 0.1), ("b", 5.0, 15.0, "jump", 0.9), ("b", 0.0, 1.0, "run", 0.9)]
    scores = evaluate_segments(truth, predictions, blocked=["b", "never seen"])
    assert scores.labels == ("run",) and scores.average_map == 1
    assert (scores.num_videos, scores.num_official, scores.num_predictions) == (1, 2, 1)
    with pytest.raises(ValueError, match="no ground truth segment in 0 of 2 videos"):
        evaluate_segments(truth, [], blocked=["a", "b"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", [1, 2, 4])
def test_numbers_must_be_finite(field, value):
    row = ["a", 0.0, 10.0, "run", 0.5]
    row[field] = value
    with pytest.raises(ValueError, match=r"video 'a': (start|end|score) of a segment is not finite"):
        evaluate_segments({"a": RUN}, [tuple(row)])
    if field < 3:
        with pytest.raises(ValueError, match="not finite"):
            evaluate_segments({"a": [tuple(row[1:4])]}, [])


def _write(folder, data):
    path = folder / "file.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_reading_the_official_layout(tmp_path):
    database = {
        "a": {"subset": "validation", "duration": 9.0, "annotations": [{"segment": [0, 4.5], "label": "run"}]},
        "b": {"subset": "validation", "duration": 9.0, "annotations": []},
        "c": {"subset": "training", "annotations": [{"segment": [1.0, 2.0], "label": "jump"}]},
        "d": {"subset": "testing", "annotations": []},
    }
    path = _write(tmp_path, {"version": "VERSION 1.3", "taxonomy": [], "database": database})
    assert read_truth(path) == {"a": [(0, 4.5, "run")], "b": []}
    assert read_truth(path, "training") == {"c": [(1.0, 2.0, "jump")]}
    for subset in ("testing", "valid"):
        with pytest.raises(ScoreFileError, match=r"file.json: no ground truth in subset .*validation \(1\)"):
            read_truth(path, subset)
    rows = [{"segment": [3, 4], "label": "run", "score": 1}, {"segment": [0.5, 1], "label": "x", "score": 0.5}]
    path = _write(tmp_path, {"version": "1", "external_data": {}, "results": {"b": rows, "a": rows[:1]}})
    assert read_predictions(path) == [("b", 3, 4, "run", 1), ("b", 0.5, 1, "x", 0.5), ("a", 3, 4, "run", 1)]


GOOD = {"segment": [0.0, 1.0], "label": "run", "score": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "score": "0.5"}], r"results\['a'\]\[1\]: score is '0.5'"),
        ([{**GOOD, "score": True}], r"\[0\]: score is True"),
        ([{**GOOD, "segment": [0.0]}], r"\[0\]: segment is \[0.0\]"),
        ([{**GOOD, "segment": ["0", 1.0]}], r"\[0\]: segment is \['0', 1.0\]"),
        ([{**GOOD, "label": 7}], r"\[0\]: label is 7"),
        ([[0.0, 1.0]], r"\[0\] is \[0.0, 1.0\], must be an object"),
        ({"segment": []}, r"results\['a'\] is .*, must be a list"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, rows, message):
    with pytest.raises(ScoreFileError, match=message):
        read_predictions(_write(tmp_path, {"results": {"a": rows}}))


def test_wrong_files_are_refused(tmp_path):
    for text, message in [
        ("{", "not JSON"),
        ("[]", "'results'"),
        ('{"database": {}}', r"'results' inside, found \['database'\]"),
        ('{"results": {"a": [], "a": []}}', "key 'a' occurs twice"),
        ("[" * 100_000, "not JSON"),
    ]:
        with pytest.raises(ScoreFileError, match=message):
            read_predictions(_write(tmp_path, text))
    with pytest.raises(ScoreFileError, match="no such file"):
        read_predictions(tmp_path / "none.json")
    for record, message in [
        ({"subset": "validation"}, r"database\['a'\]: annotations is None"),
        ({"annotations": []}, "subset is missing"),
        ({"subset": "validation", "annotations": [{"label": "run"}]}, r"annotations\[0\]: segment is None"),
    ]:
        with pytest.raises(ScoreFileError, match=message):
            read_truth(_write(tmp_path, {"database": {"a": record}}))
