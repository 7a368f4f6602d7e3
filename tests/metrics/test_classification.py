"""Accuracies by hand and against slow twins: ties are worth their expectation, what is missing is wrong."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.metrics.classification import (
    Question,
    majority_accuracy,
    question_kind,
    score_answers,
    score_classes,
)


def test_accuracies_by_hand():
    scores = np.array(
        [
            [0.9, 0.1, 0.0, 0.0, 0.0, 0.0],
            [0.9, 0.5, 0.4, 0.3, 0.2, 0.1],
            [0.1, 0.9, 0.0, 0.0, 0.0, 0.0],
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.1],
        ]
    )
    found = score_classes(scores, np.array([0, 0, 1, 5]))
    assert (found.top1, found.top5) == (75, 75)
    assert found.mean_class == pytest.approx(100 * (1 + 1 + 0) / 3)
    assert found.confusion[0, 0] == 2 and found.confusion[1, 1] == 1 and found.confusion[5, 0] == 1
    assert found.confusion.sum() == 4
    assert found.baselines() == pytest.approx(
        {"chance/top-1": 100 / 6, "chance/top-5": 500 / 6, "chance/mean_class": 100 / 6, "majority/top-1": 50}
    )


def test_constant_scores_are_worth_chance():
    labels = np.array([0, 0, 0, 1, 7])
    found = score_classes(np.full((5, 8), 0.3), labels)
    assert (found.top1, found.top5, found.mean_class) == pytest.approx((12.5, 62.5, 12.5))
    assert found.num_tied == 5 and found.metrics()["top-1"] == pytest.approx(found.baselines()["chance/top-1"])
    np.testing.assert_allclose(found.confusion.sum(axis=1), np.bincount(labels, minlength=8))
    few = score_classes(np.zeros((2, 3)), np.array([0, 1]))
    assert few.top5 == few.baselines()["chance/top-5"] == 100


def test_a_clip_without_scores_is_wrong():
    scores, labels = np.eye(3), np.array([0, 1, 2])
    found = score_classes(scores, labels, np.array([False, True, False]))
    assert (found.top1, found.top5, found.mean_class) == pytest.approx((200 / 3, 200 / 3, 200 / 3))
    assert found.num_missing == 1 and "1 without scores count as wrong" in found.protocol
    nothing = score_classes(np.full((3, 3), np.nan), labels, np.ones(3, dtype=bool))
    assert (nothing.top1, nothing.top5, nothing.mean_class) == (0, 0, 0)


@settings(max_examples=40)
@given(st.data())
def test_ties_are_the_average_over_all_orders(data):
    clips, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    level = st.integers(0, 2)
    rows = st.lists(st.lists(level, min_size=classes, max_size=classes), min_size=clips, max_size=clips)
    scores = np.array(data.draw(rows), dtype=np.float64)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=clips, max_size=clips)))
    first, among_five, confusion = np.zeros(clips), np.zeros(clips), np.zeros((classes, classes))
    for clip, (row, label) in enumerate(zip(scores, labels, strict=True)):
        orders = [
            order
            for order in itertools.permutations(range(classes))
            if all(row[a] >= row[b] for a, b in itertools.pairwise(order))
        ]
        first[clip] = np.mean([order[0] == label for order in orders])
        among_five[clip] = np.mean([label in order[:5] for order in orders])
        for order in orders:
            confusion[label, order[0]] += 1 / len(orders)
    found = score_classes(scores, labels)
    per_class = [first[labels == label].mean() for label in set(labels.tolist())]
    assert (found.top1, found.top5) == pytest.approx((100 * first.mean(), 100 * among_five.mean()))
    assert found.mean_class == pytest.approx(100 * np.mean(per_class))
    np.testing.assert_allclose(found.confusion, confusion, atol=1e-12)
    assert found.top1 == pytest.approx(100 * np.trace(found.confusion) / clips)


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="score of clip 1 for class 2 is NaN"):
        score_classes(np.array([[np.nan, 0, 0], [0, 0, np.nan]]), np.array([0, 0]), np.array([True, False]))
    with pytest.raises(ValueError, match="labels go from 0 to 3, but classes are 0 to 2"):
        score_classes(np.eye(3), np.array([0, 3, 1]))
    with pytest.raises(ValueError, match="labels go from -1"):
        score_classes(np.eye(3), np.array([0, -1, 1]))
    with pytest.raises(ValueError, match="nothing to score"):
        score_classes(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


QUESTIONS = [
    Question("1", "dog", "what"),
    Question("2", "dog", "what"),
    Question("3", "two", "how"),
    Question("4", "lemur", "what"),
]


def test_answers_by_hand():
    found = score_answers(QUESTIONS, {"1": "dog", "2": "cat", "3": "two", "99": "dog"}, ["dog", "cat", "two"])
    assert found.accuracy == 50
    assert found.by_kind == {"how": 100, "what": pytest.approx(100 / 3)}
    assert found.num_by_kind == {"how": 1, "what": 3}
    assert (found.num_questions, found.num_missing, found.num_elsewhere) == (4, 1, 1)
    assert found.coverage == 75  # "lemur" is not in the vocabulary: no model that picks from it can score more
    assert found.baselines() == {"chance/accuracy": 25, "majority/accuracy": 50}
    assert found.metrics() == {"accuracy": 50, "accuracy/how": 100, "accuracy/what": pytest.approx(100 / 3)} | {
        "coverage": 75
    }
    assert "75.00 % of the answers are in the vocabulary" in found.protocol


def test_nothing_is_made_equal_that_is_not():
    for answer in ("Dog", "dog ", "a dog", "dogs"):
        assert score_answers(QUESTIONS[:1], {"1": answer}).accuracy == 0
    assert score_answers(QUESTIONS[:1], {"1": "dog"}).coverage is None


def test_a_question_counts_once():
    repeated = [*QUESTIONS, QUESTIONS[0]]
    found = score_answers(repeated, [("1", "dog"), ("1", "dog"), ("2", "cat")])
    assert (found.accuracy, found.num_questions, found.num_repeated) == (25, 4, 2)
    with pytest.raises(ValueError, match="question '1' has two predictions: 'dog' and 'cat'"):
        score_answers(QUESTIONS, [("1", "dog"), ("1", "cat")])
    with pytest.raises(ValueError, match="question '1' occurs twice"):
        score_answers([*QUESTIONS, Question("1", "cat", "what")], {"1": "dog"})
    with pytest.raises(ValueError, match=r"no prediction has the id of a question .*'1', '2', 'q1'"):
        score_answers(QUESTIONS, {"q1": "dog"})
    with pytest.raises(ValueError, match="no question"):
        score_answers([], {"1": "dog"})


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.lists(st.sampled_from("abcd"), min_size=1))
def test_the_denominator_is_all_questions(answers, guesses):
    questions = [Question(str(n), answer) for n, answer in enumerate(answers)]
    predictions = {str(n): guess for n, guess in enumerate(guesses)}
    found = score_answers(questions, predictions, "ab")
    right = sum(predictions.get(str(n)) == answer for n, answer in enumerate(answers))
    assert found.accuracy == pytest.approx(100 * right / len(answers))
    assert found.coverage == pytest.approx(100 * np.mean([answer in "ab" for answer in answers]))


def test_the_majority_of_train_on_test():
    assert majority_accuracy(["a", "a", "b"], ["a", "b", "b", "b"]) == 25
    assert majority_accuracy([1, 2], [1, 1, 2, 3]) == pytest.approx((50 + 25) / 2)  # a tie: the mean of both
    assert majority_accuracy(["never"], ["asked"]) == 0
    with pytest.raises(ValueError, match="neither may be empty"):
        majority_accuracy([], ["a"])


def test_the_type_of_a_question_is_its_first_word():
    assert [question_kind(q) for q in ("What is it?", "who  sings", "is it red?", "whatever", "")] == [
        "what",
        "who",
        "other",
        "other",
        "other",
    ]
